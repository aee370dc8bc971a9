"""Disks presented as VHDX, VHD and VMDK, through a real mount, to QEMU's own readers."""

import os
import random
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from store.errors import UnsupportedError
from store.image import BytesImage, DescriptorImage, Extent, ExtentKind, Image
from tests.guest.disks import vhdx_writer
from tests.guest.disks.qemu import MIB, agree, create, need, opened, run, scribble
from tests.timetree.memory_history import MemoryHistory
from timefs.guest.detect import as_vhd, as_vhdx, as_vmdk, decode, sector_bytes
from timefs.guest.vhd_made import geometry
from timefs.mount.mounting import mounted
from timefs.times import SECOND_NS
from timefs.timetree import TimeTree

TEN = 1_714_557_600 * SECOND_NS
SIZES = {"small": 3 * MIB + 512, "large": 40 * MIB}


class Blank(Image):
    """Zeros of any size, with some bytes at the end."""

    def __init__(self, size: int, tail: bytes) -> None:
        self._size = size
        self._tail = tail

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self._size - offset))
        start = self._size - len(self._tail)
        for at in range(wanted):
            buffer[at] = self._tail[offset + at - start] if offset + at >= start else 0
        return wanted

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        end, tail_at = min(offset + length, self._size), self._size - len(self._tail)
        if offset < tail_at:
            yield Extent(offset, min(end, tail_at) - offset, ExtentKind.ZERO, None, 0)
            offset = min(end, tail_at)
        if offset < end:
            yield Extent(offset, end - offset, ExtentKind.DATA, self, offset)


@pytest.fixture
def shown(tmp_path: Path) -> Generator[tuple[Path, Path]]:
    """A folder of raw and QCOW2 disks, and the instant that shows them."""
    need("qemu-img", "qemu-io")
    if not Path("/dev/fuse").exists():
        pytest.skip("no /dev/fuse here")
    disks, mount = tmp_path / "disks", tmp_path / "mount"
    disks.mkdir()
    mount.mkdir()
    files: dict[str, bytes | Image] = {}
    held: list[int] = []
    for name, size in SIZES.items():
        for kind in ("raw", "qcow2"):
            path = disks / f"{name}-{kind}.{kind}"
            create(path, kind, size)
            scribble(path, kind, size, random.Random(name))
            held.append(os.open(path, os.O_RDONLY))
            files[path.name] = DescriptorImage(held[-1])
    history = MemoryHistory(TEN + SECOND_NS)
    history.seal("vm1", TEN, files, disks=[name for name in files if "raw" in name])
    try:
        with mounted(TimeTree(history).root, mount):
            yield disks, mount / "vm1" / "latest"
    finally:
        for descriptor in held:
            os.close(descriptor)


@pytest.mark.system
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_qemu_reads_the_presented_disk(shown: tuple[Path, Path], name: str, kind: str):
    disks, instant = shown
    source = disks / f"{name}-{kind}.{kind}"
    for suffix, form in (("vhdx", "vhdx"), ("vhd", "vpc"), ("vmdk", "vmdk")):
        path = instant / f"{name}-{kind}.{suffix}"
        assert f"({SIZES[name]} bytes)" in run("qemu-img", "info", "-f", form, path)
        run("qemu-img", "compare", "-f", form, "-F", kind, path, source)
    for form in ("vhdx", "vmdk"):
        run("qemu-img", "check", "-f", form, instant / f"{name}-{kind}.{form}")


@pytest.mark.system
def test_holes_stay_holes_and_what_was_captured_as_a_disk_is_listed(shown: tuple[Path, Path]):
    _, instant = shown
    names = {path.name for path in instant.iterdir()}
    assert "large-raw.vhdx" in names
    assert "large-qcow2.vhdx" not in names
    with (instant / "large-qcow2.vhdx").open("rb") as file:
        hole = os.lseek(file.fileno(), 0, os.SEEK_HOLE)
        data = os.lseek(file.fileno(), hole, os.SEEK_DATA)
        assert 0 < hole < MIB
        assert data == 2 * MIB
    copy = subprocess.run(
        ["cp", "--sparse=auto", instant / "large-qcow2.vhdx", instant.parents[2] / "copy"],
        check=False,
        timeout=60,
        capture_output=True,
    )
    assert copy.returncode == 0
    copied = (instant.parents[2] / "copy").stat()
    assert copied.st_blocks * 512 < copied.st_size


@pytest.mark.parametrize("size", [1, 511, 512, MIB, 3 * MIB + 4096, 70 * MIB + 7])
def test_we_read_what_we_made(size: int):
    chance = random.Random(size)
    content = chance.randbytes(min(size, 5000)) + bytes(max(size - 5000, 0))
    whole = content.ljust(-(-size // 512) * 512, b"\0")
    for made in (as_vhdx, as_vhd, as_vmdk):
        file = made(BytesImage(content), b"one")
        agree(decode(file), whole, chance, 20)
        assert file.read(0, 6 * MIB) == made(BytesImage(content), b"one").read(0, 6 * MIB)
        assert file.read(0, file.size) != made(BytesImage(content), b"two").read(0, file.size)


@pytest.mark.parametrize("size", [(64 << 30) + 512, 2 << 40, 64 << 40])
def test_a_huge_disk_is_presented_by_arithmetic(size: int):
    file = as_vhdx(Blank(size, b"the end"), b"huge")
    disk = decode(file)
    assert disk.size == size
    assert disk.read(size - 7, 100) == b"the end"
    assert disk.read(size // 2, 100) == bytes(100)


def test_a_vmdk_counts_sectors_to_the_end_of_its_tables():
    size = (2 << 40) - (1 << 30)
    disk = decode(as_vmdk(Blank(size, b"the end"), b"huge"))
    assert disk.size == size
    assert disk.read(size - 7, 100) == b"the end"


def test_a_disk_too_large_for_a_vhd_or_a_vmdk_says_so():
    with pytest.raises(UnsupportedError, match="at most"):
        as_vhd(Blank(3 << 40, b""), b"huge")
    with pytest.raises(UnsupportedError, match="less than"):
        as_vmdk(Blank(2 << 40, b""), b"huge")


def test_sectors_of_4096_bytes_are_kept(tmp_path: Path):
    layout = vhdx_writer.Layout(9 * MIB, MIB, 4096)
    path = tmp_path / "disk.vhdx"
    data_guid = vhdx_writer.uuid.UUID(int=1)
    vhdx_writer.write_vhdx(path, layout, {300: b"x" * 4096}, data_guid=data_guid)
    with opened(tmp_path) as files:
        disk = decode(files["disk.vhdx"])
        again = decode(as_vhdx(disk, b"again"))
        assert sector_bytes(disk) == sector_bytes(again) == 4096
        assert again.read(0, again.size) == disk.read(0, disk.size)


def test_geometry_by_the_specification():
    """Values that QEMU's vpc driver, which follows the same appendix, writes for these sizes."""
    assert geometry(2048 * 3) == (90 << 16 | 4 << 8 | 17)
    assert geometry(65535 * 16 * 255 + 1) == (65535 << 16 | 16 << 8 | 255)
