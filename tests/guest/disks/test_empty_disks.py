"""Terabytes of nothing cost what nothing costs: runs, bytes read, processor time."""

import os
import uuid
from pathlib import Path

import pytest

from store.image import ExtentKind, Image
from tests.fuzz.bounds import bounded_case
from tests.guest.disks.holes import HoleyImage
from tests.guest.disks.qemu import KIB, MIB, create, need, run
from tests.guest.disks.vhdx_writer import Layout, write_vhdx
from timefs.guest.detect import decode
from timefs.guest.joined import JoinedImage, Piece

pytestmark = pytest.mark.system

GIB, TIB = 1 << 30, 1 << 40
READ_BYTES_MAX = 32 * MIB

KINDS: list[tuple[str, int, list[str]]] = [
    ("qcow2", 2 * TIB, []),
    ("qcow2", 2 * TIB, ["extended_l2=on"]),
    ("qcow2", 2 * TIB, ["cluster_size=4k"]),
    ("qcow2", 64 * TIB, ["cluster_size=2M"]),
    ("vhdx", 2 * TIB, []),
    ("vhdx", 64 * TIB, ["block_size=256M"]),
    ("vpc", 2040 * GIB, ["force_size=on"]),
    ("vdi", 2 * TIB, []),
    ("vmdk", 2 * TIB - 64 * KIB, []),
    ("vmdk", 64 * GIB, ["subformat=twoGbMaxExtentSparse"]),
]


class Folder:
    """Files by name, their holes known."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: dict[str, HoleyImage] = {}

    def find(self, name: str) -> Image | None:
        if name not in self.images and (self.folder / name).is_file():
            self.images[name] = HoleyImage(os.open(self.folder / name, os.O_RDONLY))
        return self.images.get(name)

    def disk(self, name: str) -> Image:
        container = self.find(name)
        assert container is not None
        return decode(container, self.find)

    def bytes_read(self) -> int:
        return sum(image.bytes_read for image in self.images.values())

    def close(self) -> None:
        for image in self.images.values():
            os.close(image.file)


def walk(disk: Image) -> int:
    """How many runs there are, all of which are zeros."""
    at = runs = 0
    for extent in disk.extents(0, disk.size):
        assert extent.kind == ExtentKind.ZERO
        assert extent.offset == at
        at += extent.length
        runs += 1
    assert at == disk.size
    return runs


@pytest.mark.parametrize(("kind", "size", "options"), KINDS)
def test_a_walk_over_an_empty_disk_is_a_few_steps(
    kind: str, size: int, options: list[str], tmp_path: Path
):
    need("qemu-img")
    create(tmp_path / "disk", kind, size, options)
    files = Folder(tmp_path)
    with bounded_case(0, b"", tmp_path):
        disk = files.disk("disk")
        assert disk.size == size
        assert walk(disk) < 32 + len(files.images)
        assert disk.read(size - MIB, MIB) == bytes(MIB)
        part = JoinedImage(size - MIB, [Piece(0, size - MIB, disk, MIB)])
        assert walk(part) < 64 + len(files.images)
    assert files.bytes_read() < READ_BYTES_MAX
    files.close()


def test_a_walk_over_empty_disks_on_one_another_is_a_few_steps(tmp_path: Path):
    need("qemu-img")
    create(tmp_path / "0.qcow2", "qcow2", 2 * TIB)
    for number in range(1, 6):
        below = f"{number - 1}.qcow2"
        create(tmp_path / f"{number}.qcow2", "qcow2", 2 * TIB, (), "-b", below, "-F", "qcow2")
    files = Folder(tmp_path)
    with bounded_case(0, b"", tmp_path):
        assert walk(files.disk("5.qcow2")) < 64
    assert files.bytes_read() < READ_BYTES_MAX
    files.close()


@pytest.mark.parametrize(("kind", "size", "options"), KINDS)
def test_what_little_is_there_is_found(kind: str, size: int, options: list[str], tmp_path: Path):
    need("qemu-img", "qemu-io")
    create(tmp_path / "disk", kind, size, options)
    places = (64 * KIB, size // 3 // MIB * MIB, size - 64 * KIB)
    writes = [word for at in places for word in ("-c", f"write -P 7 {at} 64k")]
    run("qemu-io", "-f", kind, *writes, tmp_path / "disk")
    files = Folder(tmp_path)
    with bounded_case(0, b"", tmp_path):
        disk = files.disk("disk")
        found = list(disk.extents(0, disk.size))
        assert sum(extent.length for extent in found) == size
        for at in places:
            (held,) = [run for run in found if run.offset <= at < run.offset + run.length]
            assert held.kind == ExtentKind.DATA
            assert disk.read(at, 64 * KIB) == b"\7" * 64 * KIB
        assert len(found) < 64 + len(files.images)
    files.close()


def test_a_table_of_half_a_gibibyte_in_a_hole_is_not_read(tmp_path: Path):
    layout = Layout(64 * TIB, MIB)
    write_vhdx(tmp_path / "disk", layout, {}, data_guid=uuid.UUID(int=1))
    files = Folder(tmp_path)
    with bounded_case(0, b"", tmp_path):
        assert walk(files.disk("disk")) < 32
    assert files.bytes_read() < READ_BYTES_MAX
    files.close()


def test_the_first_of_what_is_there_is_found_without_the_rest(tmp_path: Path):
    """All is there, so a walk to the end would read 2 MiB of tables."""
    need("qemu-img")
    create(tmp_path / "disk", "qcow2", 16 * GIB, ["preallocation=metadata"])
    files = Folder(tmp_path)
    disk = files.disk("disk")
    assert next(iter(disk.extents(0, disk.size))).offset == 0
    assert files.bytes_read() < MIB
    files.close()
