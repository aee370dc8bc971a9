"""Disks up to 64 TiB in sparse files, both sector sizes, and every checksum that formats offer."""

import random
import uuid
from pathlib import Path

import pytest

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage
from tests.guest.disks.qemu import KIB, MIB, agree, create, need, opened, run, scribble, truth
from tests.guest.disks.vhd_writer import write_vhd
from tests.guest.disks.vhdx_writer import BAT_AT, METADATA_AT, Layout, seal, write_vhdx
from timefs.guest.detect import decode

GIB, TIB = 1 << 30, 1 << 40
DATA = uuid.UUID(int=7)


@pytest.mark.system
@pytest.mark.parametrize(
    ("kind", "size", "options"),
    [
        ("qcow2", 64 * TIB, ["cluster_size=2M"]),
        ("qcow2", 64 * TIB, ["cluster_size=2M", "extended_l2=on"]),
        ("vhdx", 64 * TIB, ["block_size=256M"]),
        ("vmdk", 2 * TIB - 64 * KIB, []),
        ("vpc", 2040 * GIB, ["force_size=on"]),
        ("vdi", 4 * TIB, []),
    ],
)
def test_the_far_end_of_a_huge_disk(kind: str, size: int, options: list[str], tmp_path: Path):
    need("qemu-img", "qemu-io")
    path = tmp_path / "disk"
    create(path, kind, size, options)
    places = {0: 1, size // 2 + 4096: 2, size - 4096: 3}
    writes = [part for at, p in places.items() for part in ("-c", f"write -P {p} {at} 4096")]
    run("qemu-io", "-f", kind, *writes, path)
    with opened(tmp_path) as files:
        disk = decode(files["disk"])
        assert disk.size == size
        for at, pattern in places.items():
            around = disk.read(at - 512, 6000) if at else b"\0" * 512 + disk.read(0, 5488)
            inside = min(6000, size - at + 512)
            assert around == (bytes(512) + bytes([pattern]) * 4096).ljust(inside, b"\0")[:inside]


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("block", [MIB, 32 * MIB, 256 * MIB])
def test_vhdx_of_64_tib_at_the_edges_of_its_chunks(sector: int, block: int, tmp_path: Path):
    layout = Layout(64 * TIB, block, sector)
    edge = layout.ratio * block // sector
    last = layout.size // sector - 1
    sectors = {at: at.to_bytes(8, "little") * (sector // 8) for at in (0, edge - 1, edge, last)}
    write_vhdx(tmp_path / "disk.vhdx", layout, sectors, data_guid=DATA)
    with opened(tmp_path) as files:
        disk = decode(files["disk.vhdx"])
        assert disk.size == 64 * TIB
        for at, content in sectors.items():
            assert disk.read(at * sector, sector) == content
        assert disk.read((edge - 1) * sector, 2 * sector) == sectors[edge - 1] + sectors[edge]
        assert disk.read((edge + 1) * sector, sector) == bytes(sector)


@pytest.fixture(scope="module")
def vhdx(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("vhdx") / "disk.vhdx"
    write_vhdx(path, Layout(3 * MIB), {5: b"x" * 512}, data_guid=DATA)
    return path.read_bytes()


def changed(content: bytes, *places: int) -> BytesImage:
    made = bytearray(content)
    for place in places:
        made[place] ^= 0xFF
    return BytesImage(bytes(made))


@pytest.mark.parametrize(("first", "second"), [(64, 128), (192, 256)])
def test_one_damaged_copy_of_header_or_regions_is_made_good_by_the_other(
    vhdx: bytes, first: int, second: int
):
    for copies in ((first,), (second,)):
        disk = decode(changed(vhdx, *(copy * KIB + 20 for copy in copies)))
        assert disk.read(5 * 512, 512) == b"x" * 512
    with pytest.raises(CorruptError, match=r"both .* damaged"):
        decode(changed(vhdx, first * KIB + 20, second * KIB + 20))


def test_the_newer_of_two_whole_headers_counts(vhdx: bytes):
    """The older one asks for a log that is not there."""
    content = bytearray(vhdx)
    older = bytearray(content[64 * KIB : 68 * KIB])
    older[48:64] = b"L" * 16
    content[64 * KIB : 68 * KIB] = seal(older)
    assert decode(BytesImage(bytes(content))).read(5 * 512, 512) == b"x" * 512
    older[8:16] = (9).to_bytes(8, "little")
    content[64 * KIB : 68 * KIB] = seal(older)
    with pytest.raises(CorruptError, match="log"):
        decode(BytesImage(bytes(content)))


def test_a_block_beyond_the_file_is_an_error_and_the_others_are_read(vhdx: bytes):
    content = bytearray(vhdx)
    content[BAT_AT + 8 : BAT_AT + 16] = ((1 << 40) | 6).to_bytes(8, "little")
    disk = decode(BytesImage(bytes(content)))
    with pytest.raises(CorruptError, match="VHDX block 1: expected it within the file"):
        disk.read(MIB, 1)


def test_a_required_item_that_is_not_known_is_refused(vhdx: bytes):
    content = bytearray(vhdx)
    at = METADATA_AT + 32 + 4 * 32
    content[at : at + 16] = b"?" * 16
    with pytest.raises(UnsupportedError, match="unknown required item"):
        decode(BytesImage(bytes(content)))


@pytest.fixture(scope="module")
def vhd(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("vhd") / "disk.vhd"
    write_vhd(path, 3 * MIB, {5: b"x" * 512}, unique_id=b"u" * 16)
    return path.read_bytes()


def test_one_damaged_vhd_footer_is_made_good_by_the_other(vhd: bytes):
    for place in (50, len(vhd) - 512 + 50):
        assert decode(changed(vhd, place)).read(5 * 512, 512) == b"x" * 512
    with pytest.raises(CorruptError, match=r"VHD footer at \d+: checksum"):
        decode(changed(vhd, 50, len(vhd) - 512 + 50))


def test_a_damaged_vhd_header_is_refused(vhd: bytes):
    with pytest.raises(CorruptError, match="VHD dynamic header at 512: checksum"):
        decode(changed(vhd, 512 + 900))


@pytest.mark.system
def test_compressed_bytes_that_are_damaged_are_an_error(tmp_path: Path):
    """VMDK's have a checksum; QCOW2's only their own structure and the length they must have."""
    need("qemu-img", "qemu-io")
    raw = tmp_path / "raw"
    raw.write_bytes(random.Random(1).randbytes(20000).hex().encode().ljust(64 * KIB, b"\0"))
    for kind, options, start, inside in (
        ("qcow2", "compression_type=zlib", b"", 0),
        ("qcow2", "compression_type=zstd", b"\x28\xb5\x2f\xfd", 0),
        ("vmdk", "subformat=streamOptimized", b"\x78\x9c", 9000),
    ):
        path = tmp_path / f"{options}.{kind}"
        compress = ("-c",) if kind == "qcow2" else ()
        run("qemu-img", "convert", *compress, "-O", kind, "-o", options, "-f", "raw", raw, path)
        content = bytearray(path.read_bytes())
        whole = decode(BytesImage(bytes(content)))
        assert whole.read(0, whole.size) == raw.read_bytes()
        at = (content.index(start) if start else 5 * 64 * KIB) + inside
        content[at : at + 8] = b"\xff" * 8
        with pytest.raises(CorruptError):
            decode(BytesImage(bytes(content))).read(0, 64 * KIB)


@pytest.mark.system
@pytest.mark.parametrize("kind", ["qcow2", "vdi", "vmdk", "vhdx", "vpc"])
def test_a_file_cut_anywhere_gives_right_bytes_or_an_error(kind: str, tmp_path: Path):
    need("qemu-img", "qemu-io")
    chance = random.Random(kind)
    path = tmp_path / "disk"
    create(path, kind, 4 * MIB, ["force_size=on"] if kind == "vpc" else [])
    scribble(path, kind, 4 * MIB, chance)
    expected = truth(path, kind)
    content = path.read_bytes()
    for _ in range(30):
        cut = BytesImage(content[: chance.randrange(len(content))])
        for offset in range(0, 4 * MIB, 64 * KIB):
            try:
                disk = decode(cut)
                if disk is cut:  # not even known any more
                    break
                assert disk.read(offset, 64 * KIB) == expected[offset : offset + 64 * KIB]
            except (CorruptError, UnsupportedError):
                continue
    agree(decode(BytesImage(content)), expected, chance, 10)
