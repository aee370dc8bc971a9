"""A file's bytes as an image: extent trees and block pointers, walked a window at a time.

Defined here and only here: `TreeContent`, `PointedContent` and `mapped`. Used by `folder`,
`xattrs`, `journal` and `files`. Immutable and thread-safe; nothing of a file's map is kept but
what the image's windows hold.

Source: Linux kernel documentation, "ext4 Data Structures and Algorithms", The Contents of
inode.i_block.
"""

import struct
from collections.abc import Iterator
from functools import partial
from typing import Final

from store.errors import CorruptError, UnsupportedError
from timefs.guest.ext.checksum import crc32c
from timefs.guest.ext.inode import Flag, Inode
from timefs.guest.ext.table import Table
from timefs.guest.extents import ExtentTree, Node, Run, RunImage

HOLE: Final = 0
EXTENT_MAGIC: Final = 0xF30A
DEPTH_MAX: Final = 5
WRITTEN_MAX: Final = 32768
"""A longer extent is that much shorter, and allocated without having been written."""

FILE_BLOCKS_MAX: Final = 1 << 32
POINTERS: Final = 12

_HEADER: Final = struct.Struct("<HHHHI")
_ENTRY: Final = struct.Struct("<IHHI")
"""Of a leaf: first block, length, place's high and low part; an index differs in order."""
_INDEX: Final = struct.Struct("<IIHH")


class Content(RunImage):
    """A file's bytes, mapped onto the volume's image."""

    def __init__(self, table: Table, inode: Inode) -> None:
        block_bytes = table.superblock.block_bytes
        if inode.size > FILE_BLOCKS_MAX * block_bytes:
            raise CorruptError(f"{inode.where}: a size of {inode.size} bytes is absurd")
        super().__init__(inode.size, block_bytes, table.volume)
        self._table = table
        self._inode = inode

    def _place(self, run: Run) -> int:
        assert run.place is not None
        return run.place * self._block_bytes


class TreeContent(Content):
    """Content that an extent tree maps."""

    def __init__(self, table: Table, inode: Inode) -> None:
        super().__init__(table, inode)
        root = _parse(table, inode, inode.area)
        child = partial(_read_child, table, inode)
        self._tree = ExtentTree(root, FILE_BLOCKS_MAX, child, inode.where)

    def runs(self, first: int, end: int) -> Iterator[Run]:
        return self._tree.runs(first, end)


def _read_child(table: Table, inode: Inode, block: int, depth: int) -> Node:
    content = table.block(block, f"{inode.where}: extent node")
    node = _parse(table, inode, content)
    if node.level != depth:
        raise CorruptError(
            f"{inode.where}: expected an extent node of depth {depth}, got {node.level}"
        )
    if inode.seed is not None:
        _, _, most, _, _ = _HEADER.unpack_from(content)
        end = _HEADER.size + most * _ENTRY.size
        got = crc32c(inode.seed, content[:end])
        if end + 4 > len(content) or content[end : end + 4] != got.to_bytes(4, "little"):
            raise CorruptError(f"{inode.where}: extent node {block}: wrong checksum")
    return node


def _parse(table: Table, inode: Inode, content: bytes) -> Node:
    magic, count, most, depth, _ = _HEADER.unpack_from(content)
    room = (len(content) - _HEADER.size) // _ENTRY.size
    if magic != EXTENT_MAGIC or not count <= most <= room or depth > DEPTH_MAX:
        raise CorruptError(
            f"{inode.where}: expected a node of extents, got magic {magic:#x}, "
            f"{count} of {most} entries, depth {depth}"
        )
    end = _HEADER.size + count * _ENTRY.size
    entries: list[Run] = []
    if depth:
        for first, low, high, _ in _INDEX.iter_unpack(content[_HEADER.size : end]):
            entries.append(Run(first, 1, low | high << 32))
        return Node(depth, entries)
    for first, length, high, low in _ENTRY.iter_unpack(content[_HEADER.size : end]):
        written = length <= WRITTEN_MAX
        blocks = length if written else length - WRITTEN_MAX
        if blocks == 0:
            raise CorruptError(f"{inode.where}: an extent of no blocks at {first}")
        place = _within(table, inode, low | high << 32, blocks)
        entries.append(Run(first, blocks, place if written else None))
    return Node(depth, entries)


def _within(table: Table, inode: Inode, place: int, blocks: int) -> int:
    """`place`, which must be within the volume."""
    end = table.superblock.blocks
    if not 0 < place <= end - blocks:
        raise CorruptError(
            f"{inode.where}: expected its blocks below {end}, got {blocks} at {place}"
        )
    return place


class PointedContent(Content):
    """Content that block pointers map: twelve direct, then through one, two and three blocks."""

    def __init__(self, table: Table, inode: Inode) -> None:
        super().__init__(table, inode)
        self._per_block = table.superblock.block_bytes // 4

    def runs(self, first: int, end: int) -> Iterator[Run]:
        pointers = struct.unpack_from("<15I", self._inode.area)
        for number in range(first, min(end, POINTERS)):
            if pointers[number] != HOLE:
                yield Run(number, 1, _within(self._table, self._inode, pointers[number], 1))
        start = POINTERS
        for level in (1, 2, 3):
            span = self._per_block**level
            if first < start + span and start < end:
                root = pointers[POINTERS - 1 + level]
                yield from self._through(root, level, start, (first, end))
            start += span

    def _through(self, block: int, level: int, start: int, asked: tuple[int, int]) -> Iterator[Run]:
        """The runs through a block of pointers to what begins at the file's block `start`."""
        if block == HOLE:
            return
        pointers = self._pointers(block, level)
        span = self._per_block ** (level - 1)
        low = max(0, (asked[0] - start) // span)
        high = min(self._per_block, -(-(asked[1] - start) // span))
        for number in range(low, high):
            if level > 1:
                yield from self._through(pointers[number], level - 1, start + number * span, asked)
            elif pointers[number] != HOLE:
                yield Run(start + number, 1, _within(self._table, self._inode, pointers[number], 1))

    def _pointers(self, block: int, level: int) -> tuple[int, ...]:
        """A block of pointers; it leads to no other one twice, or four would claim terabytes."""
        where = f"{self._inode.where}: block of pointers {block}"
        pointers = struct.unpack(f"<{self._per_block}I", self._table.block(block, where))
        if level > 1:
            below = [pointer for pointer in pointers if pointer != HOLE]
            if len(set(below)) < len(below):
                raise CorruptError(f"{where}: it leads twice to the same block")
        return pointers


def mapped(table: Table, inode: Inode) -> Content:
    """The bytes of an inode that lie in blocks.

    Raises:
        CorruptError: their map contradicts itself.
        UnsupportedError: compressed or encrypted.
    """
    if inode.flags & Flag.ENCRYPTED:
        raise UnsupportedError(f"{inode.where}: encrypted by its guest: cannot be read")
    if inode.flags & Flag.COMPRESSED:
        raise UnsupportedError(f"{inode.where}: compressed: not decoded by this version")
    if inode.flags & Flag.EXTENTS:
        return TreeContent(table, inode)
    return PointedContent(table, inode)
