"""Which bytes of a VHD's blocks the guest sees, and how many bytes of the disk."""

import random
import struct
import subprocess
from pathlib import Path

import pytest

from store.errors import CorruptError
from store.image import BytesImage
from tests.guest.disks.qemu import KIB, MIB, agree, need, opened, run
from tests.guest.disks.test_differencing import over, own_sectors
from tests.guest.disks.vhd_writer import Parent, footer, write_vhd
from timefs.guest.detect import decode

ROUNDS = 4
BEFORE = b"what lay on the volume before. " * 16 + bytes(16)


@pytest.mark.parametrize("differencing", [False, True])
def test_sectors_that_the_bitmap_lacks_are_never_read_from_their_block(
    differencing: bool, tmp_path: Path
):
    for seed in range(ROUNDS):
        chance = random.Random(seed)
        size = chance.randrange(1, 9000) * 512
        below = own_sectors(chance, size, 512)
        own = own_sectors(chance, size, 512)
        block = chance.choice((4 * KIB, 64 * KIB, 2 * MIB))
        write_vhd(tmp_path / "base.vhd", size, below, unique_id=b"b" * 16, before=BEFORE)
        parent = Parent(b"b" * 16, "base.vhd") if differencing else None
        write_vhd(
            tmp_path / "disk.vhd", size, own, unique_id=b"c" * 16, parent=parent,
            block_bytes=block, chance=chance, before=BEFORE,
        )  # fmt: skip
        expected = over(over(b"", below, size, 512) if differencing else b"", own, size, 512)
        with opened(tmp_path) as files:
            agree(decode(files["disk.vhd"], files.find), expected, chance)


@pytest.mark.parametrize("first", [3, 5])
def test_blocks_that_claim_the_same_bytes_are_an_error_and_others_are_read(
    first: int, tmp_path: Path
):
    """Block 1 lies where block 0 does, or begins within it."""
    path = tmp_path / "disk.vhd"
    sectors = {0: b"0" * 512, 2 * 8192: b"2" * 512}
    write_vhd(path, 12 * MIB, sectors, unique_id=b"c" * 16, block_bytes=4 * MIB)
    content = bytearray(path.read_bytes())
    (place,) = struct.unpack_from(">I", content, 1536)
    struct.pack_into(">I", content, 1536 + 4, place + first - 3)
    disk = decode(BytesImage(bytes(content)))
    assert disk.read(8 * MIB, 512) == b"2" * 512
    for block in (0, 1):
        with pytest.raises(CorruptError, match=f"VHD block {block}: expected it alone"):
            disk.read(block * 4 * MIB, 512)


CREATORS = (b"vpc ", b"vs  ", b"qemu", b"none", b"win ", b"d2v ", b"tap\0", b"CTXS", b"qem2")
SHAPES = (100 << 16 | 4 << 8 | 17, 65535 << 16 | 16 << 8 | 255, 120 << 16 | 4 << 8 | 17)


@pytest.mark.system
@pytest.mark.parametrize("creator", CREATORS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [2, 3])
def test_a_disk_is_as_large_as_qemu_says_by_its_creator(
    creator: bytes, shape: int, kind: int, tmp_path: Path
):
    need("qemu-img")
    path, size = tmp_path / "disk.vhd", 4 * MIB
    tail = footer(size, kind, b"u" * 16, creator, shape)
    if kind == 2:
        path.write_bytes(random.Random(1).randbytes(size) + tail)
    else:
        write_vhd(path, size, {8191: b"e" * 512}, unique_id=b"u" * 16)
        path.write_bytes(tail + path.read_bytes()[512:-512] + tail)
    run("qemu-img", "convert", "-f", "vpc", "-O", "raw", path, tmp_path / "raw")
    with opened(tmp_path) as files:
        disk = decode(files["disk.vhd"])
        assert disk.read(0, size) == (tmp_path / "raw").read_bytes()


@pytest.mark.parametrize(
    ("creator", "shape"),
    [
        (b"vbox", 100 << 16 | 4 << 8 | 17),  # read by its size by the program that made it
        (b"wa\0\0", 100 << 16 | 4 << 8 | 17),  # likewise, and by newer versions of QEMU
        (b"vpc ", 0),  # no geometry
        (b"vpc ", 500 << 16 | 4 << 8 | 17),  # one beyond the size, where nothing is
    ],
)
def test_a_disk_is_never_smaller_or_larger_than_what_it_holds(creator: bytes, shape: int):
    tail = footer(4 * MIB, 2, b"u" * 16, creator, shape)
    assert decode(BytesImage(bytes(4 * MIB) + tail)).size == 4 * MIB


def test_a_size_that_is_not_in_sectors_is_rounded_down_as_qemu_does(tmp_path: Path):
    tail = footer(MIB + 100, 2, b"u" * 16, b"win ")
    path = tmp_path / "disk.vhd"
    path.write_bytes(b"x" * (MIB + 512) + tail)
    done = subprocess.run(
        ["qemu-img", "info", "-f", "vpc", path],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"({MIB} bytes)" in done.stdout
    assert decode(BytesImage(path.read_bytes())).size == MIB
