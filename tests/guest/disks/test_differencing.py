"""Differencing VHD and VHDX disks, written by the specification, against a model of sectors."""

import random
import subprocess
import uuid
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import CorruptError
from tests.guest.disks import vhd_writer, vhdx_writer
from tests.guest.disks.qemu import KIB, MIB, agree, need, opened
from tests.guest.disks.vhd_writer import write_vhd
from tests.guest.disks.vhdx_writer import Layout, write_vhdx
from timefs.guest.bitmap import bit_runs
from timefs.guest.detect import decode, references

ROUNDS = 4
SOAK_ROUNDS = 150


@given(st.binary(min_size=1, max_size=40), st.data(), st.sampled_from(["big", "little"]))
def test_runs_of_bits_at_every_alignment(
    bitmap: bytes, data: Any, order: Literal["big", "little"]
) -> None:
    first = data.draw(st.integers(0, len(bitmap) * 8))
    count = data.draw(st.integers(0, len(bitmap) * 8 - first))
    bits = [
        bool(bitmap[bit // 8] >> (7 - bit % 8 if order == "big" else bit % 8) & 1)
        for bit in range(first, first + count)
    ]
    got: list[bool] = []
    for value, at, length in bit_runs(bitmap, first, count, order):
        assert at == first + len(got)
        assert length > 0
        assert not got or got[-1] != value
        got += [value] * length
    assert got == bits


def own_sectors(chance: random.Random, size: int, sector: int) -> dict[int, bytes]:
    """Sectors that a child has: runs of all lengths at all alignments."""
    found: dict[int, bytes] = {}
    for _ in range(chance.randrange(1, 40)):
        first = chance.randrange(size // sector)
        for number in range(first, min(first + chance.choice((1, 3, 8, 50)), size // sector)):
            found[number] = chance.randbytes(sector)
    return found


def over(below: bytes, own: dict[int, bytes], size: int, sector: int) -> bytes:
    content = bytearray(below[:size].ljust(size, b"\0"))
    for number, piece in own.items():
        content[number * sector : (number + 1) * sector] = piece
    return bytes(content)


def pyvhdi_reads(*chain: Path) -> bytes:
    """What libvhdi reads of the last file of a chain, the first of which has no parent."""
    pyvhdi = pytest.importorskip("pyvhdi")
    files: list[Any] = []
    for path in chain:
        file = pyvhdi.file()
        file.open(str(path))
        if files:
            file.set_parent(files[-1])
        files.append(file)
    size: int = files[-1].get_media_size()
    content = b"".join(
        files[-1].read_buffer_at_offset(min(64 * KIB, size - at), at)
        for at in range(0, size, 64 * KIB)
    )
    for file in reversed(files):
        file.close()
    return content


@pytest.mark.parametrize("kind", ["vhd", "vhdx"])
def test_random_chains_read_as_the_model_says(kind: str, tmp_path: Path, soak: bool):
    for seed in range(SOAK_ROUNDS if soak else ROUNDS):
        chance = random.Random(f"{kind} {seed}")
        chain = vhd_chain if kind == "vhd" else vhdx_chain
        expected, names = chain(chance, tmp_path)
        with opened(tmp_path) as files:
            agree(decode(files[names[-1]], files.find), expected, chance)


@pytest.mark.system
def test_random_vhd_chains_read_as_7zip_reads_them(tmp_path: Path):
    need("7zz")
    for seed in range(ROUNDS):
        expected, names = vhd_chain(random.Random(f"vhd {seed}"), tmp_path, same_size=True)
        done = subprocess.run(
            ["7zz", "x", "-so", "-tVHD", tmp_path / names[-1]],
            check=True,
            capture_output=True,
            timeout=60,
        )
        assert done.stdout == expected


def test_random_vhdx_chains_read_as_libvhdi_reads_them(tmp_path: Path):
    """Not where its reader knows no second linkage; its VHD chains lose sectors, so not these."""
    for seed in range(ROUNDS):
        chance = random.Random(f"vhdx {seed}")
        expected, names = vhdx_chain(chance, tmp_path, same_size=True, linkage2=False)
        assert pyvhdi_reads(*(tmp_path / name for name in names)) == expected


def vhd_chain(
    chance: random.Random, folder: Path, *, same_size: bool = False
) -> tuple[bytes, list[str]]:
    content, parent, names = b"", None, list[str]()
    block = chance.choice((64 * KIB, 512 * KIB, 2 * MIB))
    size = chance.randrange(1, 9000) * 512
    for number in range(chance.randrange(2, 5)):
        names.append(f"disk{number}.vhd")
        own = own_sectors(chance, size, 512)
        unique_id = chance.randbytes(16)
        write_vhd(
            folder / names[-1], size, own, unique_id=unique_id, parent=parent,
            block_bytes=block, chance=chance,
        )  # fmt: skip
        content = over(content, own, size, 512)
        relative = chance.choice(("", ".\\" + names[-1], "..\\x\\" + names[-1]))
        parent = vhd_writer.Parent(unique_id, names[-1], relative)
        size += 0 if same_size else chance.choice((0, 0, 5120))
    return content, names


def vhdx_chain(
    chance: random.Random, folder: Path, *, same_size: bool = False, linkage2: bool = True
) -> tuple[bytes, list[str]]:
    content, parent, names = b"", None, list[str]()
    sector = chance.choice((512, 4096))
    size = chance.randrange(1, 5 * MIB // sector) * sector
    block = chance.choice((1, 2, 4)) * MIB
    for number in range(chance.randrange(2, 5)):
        names.append(f"disk{number}.vhdx")
        own = own_sectors(chance, size, sector)
        layout = Layout(size, block, sector)
        states: dict[int, int] = {}
        data_guid = uuid.UUID(int=chance.getrandbits(128))
        for at in range(layout.blocks):
            has = any(key * sector // block == at for key in own)
            if not has and not same_size and chance.random() < 0.3:
                states[at] = chance.choice((1, 2, 3, 5))
        write_vhdx(
            folder / names[-1], layout, own, data_guid=data_guid, parent=parent, states=states,
            chance=chance,
        )  # fmt: skip
        below = bytearray(content.ljust(size, b"\0"))
        for at in states:
            end = min((at + 1) * block, len(below))
            below[at * block : end] = bytes(end - at * block)
        content = over(bytes(below), own, size, sector)
        paths = {"relative_path": ".\\" + names[-1], "absolute_win32_path": "C:\\vm\\" + names[-1]}
        if chance.random() < 0.5:
            paths.pop("relative_path")
        parent = vhdx_writer.Parent(data_guid, paths, linkage2 and chance.random() < 0.3)
        size += 0 if same_size else chance.choice((0, 0, sector * 3))
    return content, names


def test_a_vhd_on_another_parent_than_its_own_is_refused(tmp_path: Path):
    write_vhd(tmp_path / "base.vhd", MIB, {0: b"b" * 512}, unique_id=b"B" * 16)
    write_vhd(
        tmp_path / "child.vhd", MIB, {1: b"c" * 512}, unique_id=b"C" * 16,
        parent=vhd_writer.Parent(b"X" * 16, "base.vhd"),
    )  # fmt: skip
    with opened(tmp_path) as files, pytest.raises(CorruptError, match=r"'base\.vhd': id: expected"):
        decode(files["child.vhd"], files.find)


def test_a_vhdx_on_a_parent_that_was_written_to_is_refused(tmp_path: Path):
    base, other = uuid.UUID(int=1), uuid.UUID(int=2)
    write_vhdx(tmp_path / "base.vhdx", Layout(MIB), {}, data_guid=other)
    parent = vhdx_writer.Parent(base, {"relative_path": ".\\base.vhdx"})
    write_vhdx(tmp_path / "child.vhdx", Layout(MIB), {}, data_guid=uuid.UUID(int=3), parent=parent)
    with opened(tmp_path) as files, pytest.raises(CorruptError, match="it was written to after"):
        decode(files["child.vhdx"], files.find)


@pytest.mark.parametrize("kind", ["vhd", "vhdx"])
def test_a_missing_parent_is_named(kind: str, tmp_path: Path):
    _, names = (vhd_chain if kind == "vhd" else vhdx_chain)(random.Random(1), tmp_path)
    (tmp_path / names[-2]).unlink()
    with opened(tmp_path) as files:
        assert names[-2] in references(files[names[-1]])
        with pytest.raises(CorruptError, match=f"{names[-2]} among the machine's"):
            decode(files[names[-1]], files.find)


def test_a_disk_that_is_its_own_parent_is_refused(tmp_path: Path):
    write_vhd(
        tmp_path / "disk.vhd", MIB, {}, unique_id=b"A" * 16,
        parent=vhd_writer.Parent(b"A" * 16, "disk.vhd"),
    )  # fmt: skip
    with opened(tmp_path) as files, pytest.raises(CorruptError, match="a chain with an end"):
        decode(files["disk.vhd"], files.find)


def test_a_partly_present_block_without_its_bitmap_is_an_error_not_the_parents(tmp_path: Path):
    base = uuid.UUID(int=1)
    write_vhdx(tmp_path / "base.vhdx", Layout(2 * MIB), {}, data_guid=base)
    path = tmp_path / "child.vhdx"
    write_vhdx(
        path, Layout(2 * MIB), {5: b"c" * 512}, data_guid=uuid.UUID(int=3),
        parent=vhdx_writer.Parent(base, {"relative_path": ".\\base.vhdx"}),
    )  # fmt: skip
    with path.open("r+b") as file:
        file.seek(vhdx_writer.BAT_AT + Layout(2 * MIB).ratio * 8)
        file.write(bytes(8))
    with opened(tmp_path) as files:
        disk = decode(files["child.vhdx"], files.find)
        with pytest.raises(CorruptError, match="sector bitmap 0"):
            disk.read(0, 512)
