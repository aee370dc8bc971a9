"""Volumes of XFS made to be expensive cost no more than what is there, and say what is wrong."""

import struct
from pathlib import Path

import pytest

from store.image import Image
from tests.fuzz.trial import Trial
from tests.guest.kernel import need, run
from tests.guest.sparse import SparseImage
from timefs.guest.xfs import open_volume
from timefs.guest.xfs.folder import FOLDER_BYTES_MAX
from timefs.guest.xfs.inode import Table
from timefs.guest.xfs.superblock import read_superblock
from timefs.tree import Folder

pytestmark = pytest.mark.system

BLOCK_BYTES = 4096
FREE = 3000
"""Blocks of the first group from here on belong to nobody."""
AREA_AT = 100
EXTENTS, TREE = 2, 3


def opener(image: Image) -> Folder:
    return open_volume(image, b"hostile").root


def extent(first: int, blocks: int, place: int) -> bytes:
    return struct.pack(">QQ", first << 9 | place >> 43, (place << 21 | blocks) & (1 << 64) - 1)


class Victim:
    """A volume of version 4, without checksums, with a folder and a file to be rewritten."""

    def __init__(self, folder: Path) -> None:
        need("mkfs.xfs")
        content = folder / "content"
        content.write_bytes(b"content" * 1000)
        lines = ["/stage", "0 0", "d--755 0 0", f"file ---644 0 0 {content}", "folder d--755 0 0"]
        lines += [f"{'long' * 8}-{number:03} ---644 0 0 {content}" for number in range(60)]
        (folder / "prototype").write_text("\n".join([*lines, "$", "$", ""]))
        volume = folder / "volume"
        run(
            *("mkfs.xfs", "-q", "-m", "crc=0", "-n", "ftype=1", "-p", folder / "prototype"),
            *("-d", f"name={volume},size=64m,file=1,agcount=2", "--unsupported"),
        )
        self.image = SparseImage.of(volume)
        self.superblock = read_superblock(self.image)
        self._root = opener(self.image)

    def number(self, name: bytes) -> int:
        return int.from_bytes(self._root.lookup(name).identity[-8:], "big")

    def place(self, name: bytes) -> int:
        number = self.number(name)
        shift = self.superblock.block_inodes_shift
        within = (number & (1 << shift) - 1) * self.superblock.inode_bytes
        return self.superblock.place(number >> shift, "inode") + within

    def block_of(self, name: bytes) -> int:
        """The first block of an inode's content."""
        area = Table(self.image, self.superblock).inode(self.number(name)).data.area
        high, low = struct.unpack_from(">QQ", area)
        return (high & 0x1FF) << 43 | low >> 21

    def claim(self, name: bytes, size: int, form: int, extents: int) -> None:
        at = self.place(name)
        self.image.write(at + 5, bytes([form]))
        self.image.write(at + 56, struct.pack(">Q", size))
        self.image.write(at + 76, struct.pack(">I", extents))

    def area(self, name: bytes, content: bytes) -> None:
        self.image.write(self.place(name) + AREA_AT, content)

    def put(self, block: int, content: bytes) -> None:
        place = self.superblock.place(block, "block")
        self.image.write(place, content.ljust(BLOCK_BYTES, b"\0"))

    def tree(self, name: bytes, size: int, extents: list[bytes]) -> None:
        """Map an inode by a tree with one level of leaves."""
        per_leaf = (BLOCK_BYTES - 24) // 16
        keys: list[int] = []
        for number, at in enumerate(range(0, len(extents), per_leaf)):
            part = extents[at : at + per_leaf]
            header = struct.pack(">4sHHqq", b"BMAP", 0, len(part), -1, -1)
            self.put(FREE + number, header + b"".join(part))
            keys.append(struct.unpack(">Q", part[0][:8])[0] >> 9)
        node = struct.pack(">4sHHqq", b"BMAP", 1, len(keys), -1, -1)
        node += struct.pack(f">{len(keys)}Q", *keys).ljust(per_leaf * 8, b"\0")
        self.put(FREE - 1, node + struct.pack(f">{len(keys)}Q", *range(FREE, FREE + len(keys))))
        most = (self.superblock.inode_bytes - AREA_AT - 4) // 16
        root = struct.pack(">HHQ", 2, 1, 0).ljust(4 + most * 8, b"\0") + struct.pack(">Q", FREE - 1)
        self.claim(name, size, TREE, len(extents))
        self.area(name, root)


def test_a_folder_of_one_block_again_and_again(tmp_path: Path):
    victim, trial = Victim(tmp_path), Trial(tmp_path)
    block, count = victim.block_of(b"folder"), 60_000
    runs = [extent(number, 1, block) for number in range(count)]
    victim.tree(b"folder", count * BLOCK_BYTES, runs)
    trial.everything(opener, victim.image)
    assert trial.said("holds already")
    assert b"long" * 8 + b"-000" in trial.names


def test_a_folder_of_overlapping_stretches_of_nothing(tmp_path: Path):
    victim, trial = Victim(tmp_path), Trial(tmp_path)
    block, blocks, nothing = victim.block_of(b"folder"), 1000, 12_000
    runs = [extent(0, 1, block)]
    runs += [extent(1 + blocks * number, blocks, nothing + number) for number in range(2000)]
    victim.tree(b"folder", FOLDER_BYTES_MAX, runs)
    trial.everything(opener, victim.image)
    assert trial.said("nothing but zeros")
    assert b"long" * 8 + b"-000" in trial.names


@pytest.mark.parametrize("size", [1 << 44, 1 << 62, (1 << 63) - 1])
def test_what_claims_much_and_holds_nothing(size: int, tmp_path: Path):
    victim, trial = Victim(tmp_path), Trial(tmp_path)
    for name in (b"folder", b"file"):
        victim.claim(name, size, EXTENTS, 0)
    trial.everything(opener, victim.image)
    assert trial.names >= {b"folder", b"file"}


def test_nodes_of_extents_that_lead_to_themselves(tmp_path: Path):
    for name in (b"folder", b"file"):
        folder = tmp_path / name.decode()
        folder.mkdir()
        victim, trial = Victim(folder), Trial(folder)
        victim.tree(name, 1 << 40, [extent(0, 1, victim.block_of(name))])
        per_leaf = (BLOCK_BYTES - 24) // 16
        keys = struct.pack(f">{per_leaf}Q", *range(per_leaf))
        node = struct.pack(">4sHHqq", b"BMAP", 1, per_leaf, -1, -1) + keys
        victim.put(FREE - 1, node + struct.pack(f">{per_leaf}Q", *[FREE - 1] * per_leaf))
        trial.everything(opener, victim.image)
        assert trial.said("node of extents")


def test_leaves_of_an_index_that_follow_one_another_for_ever(tmp_path: Path):
    victim, trial = Victim(tmp_path), Trial(tmp_path)
    block = victim.block_of(b"folder")
    index = FOLDER_BYTES_MAX // BLOCK_BYTES
    names = extent(0, 1, block) + extent(1, 1, FREE + 9) + extent(index, 1, FREE)
    for magic, header in ((0xD2FF, 16), (0xFEBE, 16)):
        leaf = struct.pack(">IIHHHH", index, index, magic, 0, 500, 1).ljust(header, b"\0")
        victim.put(FREE, leaf + struct.pack(">II", 0, index) * 500)
        victim.claim(b"folder", 2 * BLOCK_BYTES, EXTENTS, 3)
        victim.area(b"folder", names)
        trial.everything(opener, victim.image)
    assert trial.names >= {b"folder", b"file"}


def test_attributes_that_claim_much_each(tmp_path: Path):
    victim, trial = Victim(tmp_path), Trial(tmp_path)
    at = victim.place(b"file")
    victim.image.write(at + 80, struct.pack(">H", 1))
    victim.image.write(at + 82, bytes([15, EXTENTS]))
    victim.area(b"file", extent(0, 1, victim.block_of(b"file")))
    victim.image.write(at + AREA_AT + 15 * 8, extent(0, 1, FREE))
    count = 100
    leaf = struct.pack(">IIHHHHHBB", 0, 0, 0xFBEE, 0, count, 0, 0, 0, 0).ljust(32, b"\0")
    names_at = 32 + count * 8
    leaf += b"".join(
        struct.pack(">IHBB", 0, names_at + 12 * number, 0, 0) for number in range(count)
    )
    leaf += b"".join(struct.pack(">IIB3s", 1, 65536, 3, b"%03d" % at) for at in range(count))
    victim.put(FREE, leaf)
    trial.everything(opener, victim.image)
    assert trial.names >= {b"folder", b"file"}
    assert trial.said("a value in blocks that were never written")
