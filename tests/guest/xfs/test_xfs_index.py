"""A name of a large folder is found by the hash index, and damage to it never hides a name."""

import fcntl
import os
import struct
from functools import cache
from pathlib import Path

import pytest

from store.errors import CorruptError, NotFoundError
from store.image import BytesImage
from tests.guest.kernel import kernel_mount, need, run
from tests.guest.large_folders import CountedImage, fill
from timefs.guest.xfs import open_volume
from timefs.guest.xfs.content import mapped
from timefs.guest.xfs.folder import FOLDER_BYTES_MAX
from timefs.guest.xfs.index import indexed
from timefs.guest.xfs.inode import Inode, Table
from timefs.guest.xfs.superblock import read_superblock
from timefs.tree import Folder, walk

pytestmark = [pytest.mark.system, pytest.mark.root]

SHUTDOWN = 0x8004587D
"""XFS_IOC_GOINGDOWN: from this moment on nothing more is written to the device."""

KINDS = {
    "one-leaf": ("", 300),
    "nodes": ("-b size=1024", 4000),
    "large-blocks": ("-n size=16384", 4000),
}
"""Options of mkfs.xfs and how many names."""


@cache
def folder_of(kind: str, base: Path) -> tuple[bytes, tuple[bytes, ...]]:
    """A volume with a large folder, as the kernel writes it, and the folder's names."""
    need("mkfs.xfs", file_system="xfs")
    options, count = KINDS[kind]
    volume, point = base / kind, base / "point"
    with volume.open("wb") as file:
        file.truncate(40 << 20)
    run("mkfs.xfs", "-q", *options.split(), "--unsupported", volume)
    with kernel_mount(volume, point):
        left = fill(point / "folder", count, kept=2)
    return volume.read_bytes(), tuple(left)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("folders")


def opened(content: bytes) -> Folder:
    folder = walk(open_volume(BytesImage(content), b"id").root, [b"folder"])
    assert isinstance(folder, Folder)
    return folder


def table_and_inode(content: bytes) -> tuple[Table, Inode]:
    image = BytesImage(content)
    table = Table(image, read_superblock(image))
    return table, table.inode(int.from_bytes(opened(content).identity[-8:], "big"))


def block_places(content: bytes, first: int, size: int) -> list[int]:
    """Where the blocks of a part of the folder's address space lie."""
    table, inode = table_and_inode(content)
    fork = mapped(table, inode, inode.data, first + size)
    step = table.superblock.folder_block_bytes
    return [
        place
        for extent in fork.extents(first, size)
        if extent.backing is not None
        for place in range(extent.place, extent.place + extent.length, step)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_is_found_by_the_index(kind: str, base: Path):
    content, names = folder_of(kind, base)
    table, inode = table_and_inode(content)
    for name in names:
        found = indexed(table, inode, name)
        assert found is not None, name
        assert [one.name for one in found] == [name]
    for name in names[:200]:
        assert indexed(table, inode, name + b"?") == []


def test_the_first_look_up_reads_a_few_blocks(base: Path):
    content, names = folder_of("nodes", base)
    image = CountedImage(content)
    root = open_volume(image, b"id").root
    before = image.read_bytes
    folder = root.lookup(b"folder")
    assert isinstance(folder, Folder)
    folder.lookup(names[1000])
    assert image.read_bytes - before < 48 << 10


def test_the_dots_that_an_index_leads_to_are_no_names(base: Path):
    content, _ = folder_of("nodes", base)
    folder = opened(content)
    for name in (b".", b"..", b"", b"a/b"):
        with pytest.raises(NotFoundError):
            folder.lookup(name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_index_hides_no_name(kind: str, base: Path):
    content, names = folder_of(kind, base)
    places = block_places(content, FOLDER_BYTES_MAX, 64 << 20)
    assert len(places) > 1 or kind == "one-leaf"
    for at in (0, 8, 12, 48, 57, 64, 68, 200):
        hurt = bytearray(content)
        for place in places:
            hurt[place + at] ^= 0x55
        folder = opened(bytes(hurt))
        for name in names[:: len(names) // 20]:
            assert folder.lookup(name)
        with pytest.raises(NotFoundError):
            folder.lookup(b"missing")


def test_a_name_in_a_damaged_block_is_damage_and_not_absent(base: Path):
    content, names = folder_of("nodes", base)
    hurt = bytearray(content)
    for place in block_places(content, 0, 1 << 20):
        hurt[place + 70] ^= 1
    folder = opened(bytes(hurt))
    with pytest.raises(CorruptError):
        folder.lookup(names[7])
    with pytest.raises(NotFoundError):  # the index, which is whole, has no such hash
        folder.lookup(b"missing name of no hash that is there")


def test_what_a_log_still_holds_is_not_denied_by_the_index(base: Path):
    need("mkfs.xfs", file_system="xfs")
    volume, point = base / "in-use", base / "point"
    volume.write_bytes(folder_of("nodes", base)[0])
    with kernel_mount(volume, point):
        (point / "another").touch()
        descriptor = os.open(point, os.O_RDONLY)
        fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", 1))
        os.close(descriptor)
    image = CountedImage(volume.read_bytes())
    folder = open_volume(image, b"id").root.lookup(b"folder")
    assert isinstance(folder, Folder)
    with pytest.raises(NotFoundError):
        folder.lookup(b"missing")
    _, inode = table_and_inode(volume.read_bytes())
    assert image.read_bytes > inode.size  # all of it was searched
