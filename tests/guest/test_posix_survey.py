"""A listing's attributes, decoded many inodes at once, are what each inode says of itself."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from store.errors import CorruptError
from store.image import BytesImage
from tests.fuzz.test_xfs_fuzz import prototype
from tests.guest.ext.volume import small
from tests.guest.kernel import need, run
from timefs.guest import ext, xfs
from timefs.guest.ext.files import ExtFiles
from timefs.guest.ext.superblock import read_superblock as ext_superblock
from timefs.guest.ext.table import Table as ExtTable
from timefs.guest.posix import PosixFolder
from timefs.guest.posix_volume import PosixVolume
from timefs.guest.xfs.files import XfsFiles
from timefs.guest.xfs.inode import Table as XfsTable
from timefs.guest.xfs.superblock import read_superblock as xfs_superblock
from timefs.tree import Folder, Link, descend

pytestmark = [pytest.mark.system, pytest.mark.root]

CASES = 40
KINDS = {
    "ext2": "-t ext2 -b 1024 -I 128",
    "ext4": "-t ext4 -b 1024 -I 256",
    "ext4-unchecked": "-t ext4 -b 1024 -I 256 -O ^metadata_csum",
    "inline": "-t ext4 -b 4096 -I 512 -O inline_data,ea_inode,^metadata_csum",
    "xfs-4": "crc=0",
    "xfs-5": "crc=1",
}
VALUES = (0, 1, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def volume_of(kind: str, folder: Path) -> bytes:
    volume = folder / "volume"
    if not kind.startswith("xfs"):
        need("mke2fs", file_system="ext4")
        small(volume, folder / "point", KINDS[kind])
        return volume.read_bytes()
    need("mkfs.xfs")
    run(
        *("mkfs.xfs", "-q", "-m", KINDS[kind], "-p", prototype(folder)),
        *("-d", f"name={volume},size=16m,file=1", "--unsupported"),
    )
    return volume.read_bytes()


def files_of(kind: str, content: bytes) -> PosixVolume:
    image = BytesImage(content)
    if kind.startswith("xfs"):
        return XfsFiles(XfsTable(image, xfs_superblock(image)))
    return ExtFiles(ExtTable(image, ext_superblock(image)), "clean", settled=True)


def numbers_of(kind: str, content: bytes) -> list[int]:
    opened = xfs.open_volume if kind.startswith("xfs") else ext.open_volume
    root = opened(BytesImage(content), b"").root
    assert isinstance(root, PosixFolder)
    found = [node for _, node in descend(root) if not isinstance(node, Link)]
    return [root.number, *(int.from_bytes(node.identity[-8:], "big") for node in found)]


def agreed(volume: PosixVolume, numbers: Sequence[int]) -> tuple[int, int]:
    """How many were answered together, and are bare; each as it says of itself."""
    attributes, bare = volume.survey(numbers)
    for number, found in zip(numbers, attributes, strict=True):
        if found is not None:
            assert found == volume.attributes(number)
    for number in bare:
        assert dict(volume.xattrs(number)) == {}
    return sum(found is not None for found in attributes), len(bare)


@pytest.mark.parametrize("kind", KINDS)
def test_ordinary_files_are_answered_together_and_damaged_ones_never_otherwise(
    kind: str, tmp_path: Path
):
    content = volume_of(kind, tmp_path)
    numbers = numbers_of(kind, content)
    assert len(numbers) > 50
    together, bare = agreed(files_of(kind, content), numbers)
    assert together >= len(numbers) - 3  # all but devices
    assert bare > 30
    chance = random.Random(4)
    shuffled = [*numbers, *numbers, 0, 1, 1 << 31, 1 << 40, (1 << 64) - 1]
    chance.shuffle(shuffled)
    agreed(files_of(kind, content), shuffled)
    places = sorted({place_of(kind, content, number) for number in numbers})
    answered = 0
    for _ in range(CASES):
        hurt = bytearray(content)
        for place in chance.sample(places, 20):
            width = chance.choice((1, 2, 4))
            value = chance.choice(VALUES) & (1 << 8 * width) - 1
            at = place + chance.randrange(0, 176) // width * width
            hurt[at : at + width] = value.to_bytes(width, chance.choice(("little", "big")))
        answered += agreed(files_of(kind, bytes(hurt)), numbers)[0]
    assert answered > CASES * len(numbers) // 3


def place_of(kind: str, content: bytes, number: int) -> int:
    """Where an inode lies."""
    image = BytesImage(content)
    if kind.startswith("xfs"):
        superblock = xfs_superblock(image)
        shift = superblock.block_inodes_shift
        within = (number & (1 << shift) - 1) * superblock.inode_bytes
        return superblock.place(number >> shift, "inode") + within
    table = ExtTable(image, ext_superblock(image))
    group, index = divmod(number - 1, table.superblock.group_inodes)
    return table.place(group) + index * table.superblock.inode_bytes


def test_what_cannot_be_read_together_leaves_its_neighbours(tmp_path: Path):
    content = volume_of("ext4", tmp_path)
    root = ext.open_volume(BytesImage(content), b"").root
    folder = root.lookup(b"many")
    assert isinstance(folder, Folder)
    (name, victim), *_ = folder.entries()
    number = int.from_bytes(victim.identity[-8:], "big")
    hurt = bytearray(content)
    hurt[place_of("ext4", content, number) + 4] ^= 1
    folder = ext.open_volume(BytesImage(bytes(hurt)), b"").root.lookup(b"many")
    assert isinstance(folder, Folder)
    listed = {each[0]: each for part in folder.entries_with_attributes() for each in part}
    assert len(listed) == 80
    _, node, attributes = listed.pop(name)
    assert attributes is None
    with pytest.raises(CorruptError, match="checksum"):
        node.attributes()
    assert all(found == node.attributes() for _, node, found in listed.values())
