"""A fork's bytes as an image: extents in the inode or in a tree, walked a window at a time.

Defined here and only here: `Content` and `mapped`. Used by `folder`, `xattrs` and `files`.
Immutable and thread-safe.

Source: "XFS Algorithms & Data Structures", 3rd edition, Data Extents.
"""

import struct
from collections.abc import Iterator
from functools import partial
from typing import Final

from store.errors import CorruptError, UnsupportedError
from timefs.guest.extents import ExtentTree, Node, Run, RunImage
from timefs.guest.xfs.inode import Fork, Form, Inode, Table
from timefs.guest.xfs.superblock import CHECKSUMMED, checked

FILE_BLOCKS_MAX: Final = 1 << 54
DEPTH_MAX: Final = 9
EXTENT_BYTES: Final = 16
_EXTENT: Final = struct.Struct(">QQ")
_HEADERS: Final = {b"BMAP": 24, b"BMA3": 72}
_CHECKSUM_AT: Final = 64


class Content(RunImage):
    """A fork's bytes, mapped onto the volume's image."""

    def __init__(self, table: Table, inode: Inode, fork: Fork, size: int) -> None:
        if size > 1 << 63:
            raise CorruptError(f"{inode.where}: a size of {size} bytes is absurd")
        super().__init__(size, table.superblock.block_bytes, table.volume)
        self._superblock = table.superblock
        self._where = inode.where
        if fork.form == Form.EXTENTS:
            root = Node(0, list(_extents(fork.area, inode.where, fork.extents)))
        else:
            root = _root(fork.area, inode.where)
        child = partial(_read_child, table, inode)
        self._tree = ExtentTree(root, FILE_BLOCKS_MAX, child, inode.where)

    def runs(self, first: int, end: int) -> Iterator[Run]:
        return self._tree.runs(first, end)

    def holds(self, first: int, blocks: int) -> bool:
        """Whether all of some blocks were written."""
        end, at = first + blocks, first
        for run in self.runs(first, end):
            if run.first > at or run.place is None:
                return False
            at = run.first + run.blocks
        return at >= end

    def _place(self, run: Run) -> int:
        assert run.place is not None
        self._superblock.place(run.place + run.blocks - 1, self._where)
        return self._superblock.place(run.place, self._where)


def _extents(area: bytes, where: str, count: int) -> Iterator[Run]:
    """The extents in a fork or in a leaf of its tree."""
    if count > len(area) // EXTENT_BYTES:
        raise CorruptError(f"{where}: {count} extents do not fit into {len(area)} bytes")
    for index in range(count):
        high, low = _EXTENT.unpack_from(area, index * EXTENT_BYTES)
        blocks = low & 0x1FFFFF
        if blocks == 0:
            raise CorruptError(f"{where}: an extent of no blocks")
        place = (high & 0x1FF) << 43 | low >> 21
        yield Run(high >> 9 & FILE_BLOCKS_MAX - 1, blocks, None if high >> 63 else place)


def _root(area: bytes, where: str) -> Node:
    level, count = struct.unpack_from(">HH", area)
    most = (len(area) - 4) // EXTENT_BYTES
    if not 0 < level <= DEPTH_MAX or count > most:
        raise CorruptError(f"{where}: a tree of {level} levels and {count} entries is absurd")
    return Node(level, _pointers(area, 4, count, most))


def _pointers(content: bytes, at: int, count: int, most: int) -> list[Run]:
    keys = struct.unpack_from(f">{count}Q", content, at)
    places = struct.unpack_from(f">{count}Q", content, at + most * 8)
    return [Run(key, 1, place) for key, place in zip(keys, places, strict=True)]


def _read_child(table: Table, inode: Inode, block: int, level: int) -> Node:
    content = table.block(block, 1, f"{inode.where}: node {block} of extents")
    header = _HEADERS.get(content[:4])
    own_level, count = struct.unpack_from(">HH", content, 4)
    if header is None or own_level != level:
        raise CorruptError(f"{inode.where}: expected a node of extents of level {level}")
    if table.superblock.version == CHECKSUMMED and not checked(content, _CHECKSUM_AT):
        raise CorruptError(f"{inode.where}: node {block} of extents: wrong checksum")
    most = (len(content) - header) // EXTENT_BYTES
    if count > most:
        raise CorruptError(f"{inode.where}: node {block} of extents: {count} entries are too many")
    if level:
        return Node(level, _pointers(content, header, count, most))
    return Node(0, list(_extents(content[header:], inode.where, count)))


def mapped(table: Table, inode: Inode, fork: Fork, size: int) -> Content:
    """The bytes of a fork that lie in blocks.

    Raises:
        CorruptError: the fork has none, or its map contradicts itself.
        UnsupportedError: they are on a realtime device.
    """
    if fork.form not in (Form.EXTENTS, Form.TREE):
        raise CorruptError(f"{inode.where}: expected content in blocks, got form {fork.form}")
    if inode.realtime and fork is inode.data:
        raise UnsupportedError(f"{inode.where}: its content is on a realtime device")
    return Content(table, inode, fork, size)
