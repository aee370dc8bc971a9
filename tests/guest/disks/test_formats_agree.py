"""Disks of every format, geometry and writes at random: QEMU and we read the same bytes."""

import random
from pathlib import Path

import pytest

from tests.guest.disks.qemu import KIB, MIB, agree, create, need, opened, run, scribble, truth
from timefs.guest.detect import decode

pytestmark = pytest.mark.system

KINDS = ("qcow2", "qcow2-compressed", "vdi", "vmdk", "vmdk-stream", "vhdx", "vpc")
ROUNDS = 3
SOAK_ROUNDS = 200


@pytest.fixture(autouse=True)
def tools() -> None:
    need("qemu-img", "qemu-io")


def size_of(chance: random.Random, unit: int = 512) -> int:
    return chance.randrange(1, chance.choice((3 * MIB, 20 * MIB)) // unit) * unit


def qcow2_options(chance: random.Random) -> list[str]:
    extended = chance.random() < 0.4
    bits = chance.randrange(14 if extended else 9, 22)
    compat = "1.1" if extended else chance.choice(("0.10", "1.1"))
    options = [f"cluster_size={1 << bits}", f"compat={compat}"]
    if extended:
        options.append("extended_l2=on")
    if compat == "1.1":
        options.append(f"compression_type={chance.choice(('zlib', 'zstd'))}")
    return options


def made(kind: str, folder: Path, chance: random.Random) -> tuple[Path, str]:
    """A disk of that kind and QEMU's name of its format."""
    path = folder / f"disk.{kind.partition('-')[0]}"
    if kind in ("qcow2-compressed", "vmdk-stream"):
        raw = folder / "source.raw"
        size = size_of(chance, 64 * KIB if kind == "vmdk-stream" else 512)
        create(raw, "raw", size)
        scribble(raw, "raw", size, chance)
        options = ["subformat=streamOptimized"] if "vmdk" in kind else qcow2_options(chance)
        compress = ("-c",) if kind == "qcow2-compressed" else ()
        run(
            *("qemu-img", "convert", "-f", "raw", "-O", kind.partition("-")[0], *compress),
            *("-o", ",".join(options), raw, path),
        )
        return path, kind.partition("-")[0]
    size, options = size_of(chance), list[str]()
    if kind == "qcow2":
        options = qcow2_options(chance)
    elif kind == "vmdk":
        subformat = ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse")
        options = [
            f"subformat={chance.choice((*subformat, 'twoGbMaxExtentFlat'))}",
            f"zeroed_grain={'off' if chance.random() < 0.5 else 'on'}",
        ]
        if "Flat" in options[0]:
            options.pop()
    elif kind == "vdi":
        options = [f"static={chance.choice(('on', 'off'))}"]
    elif kind == "vhdx":
        options = [
            f"block_size={chance.choice((1, 2, 8, 32)) * MIB}",
            f"subformat={chance.choice(('dynamic', 'dynamic', 'fixed'))}",
        ]
    elif kind == "vpc":
        options = [f"subformat={chance.choice(('dynamic', 'dynamic', 'fixed'))}"]
        options.append(f"force_size={chance.choice(('on', 'off'))}")
    create(path, kind, size, options)
    shown = int(run("qemu-img", "info", "-f", kind, path).partition("(")[2].partition(" bytes")[0])
    scribble(path, kind, shown, chance)
    return path, kind


@pytest.mark.parametrize("kind", KINDS)
def test_random_disks_read_as_qemu_reads_them(kind: str, tmp_path: Path, soak: bool):
    for seed in range(SOAK_ROUNDS if soak else ROUNDS):
        chance = random.Random(f"{kind} {seed}")
        folder = tmp_path / str(seed)
        folder.mkdir()
        path, known = made(kind, folder, chance)
        expected = truth(path, known)
        with opened(folder) as files:
            agree(decode(files[path.name], files.find), expected, chance)


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_clusters_compressed_among_plain_ones(compression: str, tmp_path: Path):
    path = tmp_path / "disk.qcow2"
    create(path, "qcow2", 8 * MIB, [f"compression_type={compression}"])
    commands: list[str] = []
    for number, at in enumerate(random.Random(7).sample(range(0, 8 * MIB, 64 * KIB), 40)):
        commands += ["-c", f"write {'-c' if number % 3 else ''} -P {number + 1} {at} 65536"]
    run("qemu-io", "-f", "qcow2", *commands, path)
    with opened(tmp_path) as files:
        agree(decode(files["disk.qcow2"]), truth(path, "qcow2"), random.Random(1))


def test_a_vmdk_of_several_extents_reads_across_their_edges(tmp_path: Path):
    """Split by hand where QEMU would only after 2 GiB."""
    chance = random.Random(3)
    sizes = [3 * MIB, 512, 2 * MIB + 512, 70 * KIB]
    lines = ["# Disk DescriptorFile", "version=1", "CID=12345678", "parentCID=ffffffff"]
    expected = bytearray()
    for number, size in enumerate(sizes):
        sparse = number != 1
        path = tmp_path / f"disk-s{number}.vmdk"
        create(path, "vmdk" if sparse else "raw", -(-size // 65536) * 65536)
        scribble(path, "vmdk" if sparse else "raw", size, chance)
        expected += truth(path, "vmdk" if sparse else "raw")[:size]
        kind = "SPARSE" if sparse else "FLAT"
        lines.append(f'RW {size // 512} {kind} "{path.name}"{"" if sparse else " 0"}')
    lines.append("RW 1 ZERO")
    (tmp_path / "disk.vmdk").write_text("\n".join(lines) + "\n")
    with opened(tmp_path) as files:
        agree(decode(files["disk.vmdk"], files.find), bytes(expected) + bytes(512), chance)
