"""A name of a large folder is found by the hash index, and damage to it never hides a name."""

from functools import cache
from pathlib import Path

import pytest

from store.errors import CorruptError, NotFoundError
from store.image import BytesImage
from tests.guest.ext.volume import make
from tests.guest.kernel import kernel_mount, need, run
from tests.guest.large_folders import CountedImage, fill
from timefs.guest.ext import open_volume
from timefs.guest.ext.content import mapped
from timefs.guest.ext.index import indexed
from timefs.guest.ext.inode import Inode
from timefs.guest.ext.superblock import read_superblock
from timefs.guest.ext.table import Table
from timefs.tree import Folder, walk

pytestmark = [pytest.mark.system, pytest.mark.root]

COUNT = 3000
KINDS = {
    "half-md4": ("-t ext4 -b 1024", "half_md4", 1),
    "tea": ("-t ext4 -b 1024", "tea", 1),
    "legacy": ("-t ext4 -b 1024", "legacy", 1),
    "unsigned": ("-t ext4 -b 1024", "half_md4", 2),
    "unsigned-tea": ("-t ext4 -b 2048", "tea", 2),
    "unsigned-legacy": ("-t ext4 -b 4096", "legacy", 2),
    "no-checksums": ("-t ext4 -b 1024 -O ^metadata_csum", "half_md4", 1),
}
"""Options of mke2fs, the kind of hash, and whether bytes have a sign (1) or not (2)."""


@cache
def folder_of(kind: str, base: Path) -> tuple[bytes, tuple[bytes, ...]]:
    """A volume with a large folder, as the kernel writes it, and the folder's names."""
    need("mke2fs", "debugfs", file_system="ext4")
    volume, point = base / kind, base / "point"
    options, hashes, flags = KINDS[kind]
    make(volume, options, size=24 << 20)
    run("debugfs", "-w", "-R", f"ssv def_hash_version {hashes}", volume)
    run("debugfs", "-w", "-R", f"ssv flags {flags}", volume)
    with kernel_mount(volume, point):
        left = fill(point / "folder", COUNT, kept=2)
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
    number = int.from_bytes(opened(content).identity[-8:], "big")
    return table, table.inode(number)


def block_places(content: bytes) -> list[int]:
    """Where the folder's blocks lie, in order."""
    table, inode = table_and_inode(content)
    step = table.superblock.block_bytes
    return [
        place
        for extent in mapped(table, inode).extents(0, inode.size)
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
    absent = [name + b"?" for name in names[:200]]
    answers = [indexed(table, inode, name) for name in absent]
    assert answers == [None if kind == "no-checksums" else []] * len(absent)


def test_the_first_look_up_reads_a_few_blocks(base: Path):
    content, names = folder_of("half-md4", base)
    image = CountedImage(content)
    root = open_volume(image, b"id").root
    before = image.read_bytes
    folder = root.lookup(b"folder")
    assert isinstance(folder, Folder)
    folder.lookup(names[1000])
    with pytest.raises(NotFoundError):
        folder.lookup(b"missing")
    assert image.read_bytes - before < 32 << 10


def test_the_dots_that_an_index_leads_to_are_no_names(base: Path):
    content, _ = folder_of("half-md4", base)
    folder = opened(content)
    for name in (b".", b"..", b"", b"a/b"):
        with pytest.raises(NotFoundError):
            folder.lookup(name)


@pytest.mark.parametrize("kind", ["half-md4", "no-checksums"])
def test_a_damaged_index_hides_no_name(kind: str, base: Path):
    content, names = folder_of(kind, base)
    places = block_places(content)
    for at, value in ((0x1C, 9), (0x1E, 3), (0x20, 0), (0x22, 255), (0x28, 0xFF), (0x2C, 0xFF)):
        hurt = bytearray(content)
        hurt[places[0] + at] ^= value or 0xFF
        folder = opened(bytes(hurt))
        for name in names[::50]:
            assert folder.lookup(name)
        with pytest.raises((NotFoundError, CorruptError)) as caught:
            folder.lookup(b"missing")
        damage_is_seen = kind == "half-md4"
        assert isinstance(caught.value, CorruptError) == damage_is_seen


@pytest.mark.parametrize("kind", ["half-md4", "no-checksums"])
def test_swapped_hashes_of_an_index_hide_no_name(kind: str, base: Path):
    content, names = folder_of(kind, base)
    root = block_places(content)[0]
    hurt = bytearray(content)
    hurt[root + 0x28 : root + 0x2C] = (0xFFFFFF00).to_bytes(4, "little")
    folder = opened(bytes(hurt))
    for name in names[::20]:
        assert folder.lookup(name)


def test_a_name_in_a_damaged_block_is_damage_and_not_absent(base: Path):
    content, names = folder_of("half-md4", base)
    hurt = bytearray(content)
    for place in block_places(content)[1:]:
        hurt[place + 6] ^= 1
    folder = opened(bytes(hurt))
    with pytest.raises(CorruptError):
        folder.lookup(names[7])
    with pytest.raises(CorruptError):  # kept, not read again
        folder.lookup(b"missing")


def test_what_a_journal_still_holds_is_not_denied(base: Path):
    """An index may be older than the block that it leads past."""
    content, names = folder_of("half-md4", base)
    hurt = bytearray(content)
    incompatible = int.from_bytes(hurt[1024 + 0x60 : 1024 + 0x64], "little") | 4
    hurt[1024 + 0x60 : 1024 + 0x64] = incompatible.to_bytes(4, "little")
    volume = base / "needs-recovery"
    volume.write_bytes(hurt)
    run("debugfs", "-w", "-R", "ssv kbytes_written 1", volume)  # the superblock's checksum anew
    run("debugfs", "-w", "-R", "sif <8> mode 0", volume)  # a journal that cannot be replayed
    root = open_volume(BytesImage(volume.read_bytes()), b"id").root
    folder = root.lookup(b"folder")
    assert isinstance(folder, Folder)
    assert root.xattrs()[b"user.timefs.volume_state"].startswith(b"journal not replayed")
    image = CountedImage(volume.read_bytes())
    again = open_volume(image, b"id").root.lookup(b"folder")
    assert isinstance(again, Folder)
    before = image.read_bytes
    with pytest.raises(NotFoundError):
        again.lookup(b"missing")
    assert image.read_bytes - before > 100_000  # all of it was searched
    assert folder.lookup(names[5])
