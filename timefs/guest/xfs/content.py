"""A fork's bytes as an image: extents in the inode or in a tree, walked a window at a time.

Defined here and only here: `Content` and `mapped`. Used by `folder`, `xattrs` and `files`.
Immutable and thread-safe.

Source: "XFS Algorithms & Data Structures", 3rd edition, Data Extents.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, MappedImage
from timefs.guest.xfs.inode import Fork, Form, Inode, Table
from timefs.guest.xfs.superblock import CHECKSUMMED, checked

FILE_BLOCKS_MAX: Final = 1 << 54
DEPTH_MAX: Final = 9
NODES_MAX: Final = 64
EXTENT_BYTES: Final = 16
_EXTENT: Final = struct.Struct(">QQ")
_HEADERS: Final = {b"BMAP": 24, b"BMA3": 72}
_CHECKSUM_AT: Final = 64


class Run(NamedTuple):
    """Blocks of a fork that lie together; `place` is a block's number, None if never written."""

    first: int
    blocks: int
    place: int | None


class _Node(NamedTuple):
    """A node of the tree: each entry's first block, and where that leads."""

    level: int
    entries: list[Run]


class Content(MappedImage):
    """A fork's bytes, mapped onto the volume's image."""

    def __init__(self, table: Table, inode: Inode, fork: Fork, size: int) -> None:
        if size > 1 << 63:
            raise CorruptError(f"{inode.where}: a size of {size} bytes is absurd")
        super().__init__(size)
        self._table = table
        self._where = inode.where
        self._child = lru_cache(NODES_MAX)(partial(_read_child, table, inode))
        if fork.form == Form.EXTENTS:
            self._root = _Node(0, list(_extents(fork.area, inode.where, fork.extents)))
        else:
            self._root = _root(fork.area, inode.where)

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        superblock = self._table.superblock
        block_bytes = superblock.block_bytes
        end = offset + length
        at = offset
        first, last = offset // block_bytes, -(-end // block_bytes)
        for run in self._under(self._root, first, last, 0, FILE_BLOCKS_MAX):
            start, stop = run.first * block_bytes, (run.first + run.blocks) * block_bytes
            if start > at:
                yield Extent(at, start - at, ExtentKind.ZERO, None, 0)
            if run.place is None:
                yield Extent(start, stop - start, ExtentKind.ZERO, None, 0)
            else:
                superblock.place(run.place + run.blocks - 1, self._where)
                place = superblock.place(run.place, self._where)
                yield Extent(start, stop - start, ExtentKind.DATA, self._table.volume, place)
            at = stop
        if at < end:
            yield Extent(at, end - at, ExtentKind.ZERO, None, 0)

    def runs(self, end: int) -> Iterator[Run]:
        """The runs that hold the first `end` blocks; what lies between them is a hole."""
        return self._under(self._root, 0, end, 0, FILE_BLOCKS_MAX)

    def _under(self, node: _Node, first: int, end: int, low: int, high: int) -> Iterator[Run]:
        """The runs below a node that holds blocks of `[low, high)`."""
        for number, entry in enumerate(node.entries):
            following = node.entries[number + 1].first if number + 1 < len(node.entries) else high
            if following <= first:
                continue
            if entry.first >= end:
                return
            stop = entry.first + (entry.blocks if node.level == 0 else 1)
            if entry.first < low or stop > following or following > high:
                raise CorruptError(f"{self._where}: expected extents in order at {entry.first}")
            if node.level == 0:
                if stop > first:
                    yield entry
                continue
            assert entry.place is not None
            child = self._child(entry.place, node.level - 1)
            yield from self._under(child, first, end, entry.first, following)


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


def _root(area: bytes, where: str) -> _Node:
    level, count = struct.unpack_from(">HH", area)
    most = (len(area) - 4) // EXTENT_BYTES
    if not 0 < level <= DEPTH_MAX or count > most:
        raise CorruptError(f"{where}: a tree of {level} levels and {count} entries is absurd")
    return _Node(level, _pointers(area, 4, count, most))


def _pointers(content: bytes, at: int, count: int, most: int) -> list[Run]:
    keys = struct.unpack_from(f">{count}Q", content, at)
    places = struct.unpack_from(f">{count}Q", content, at + most * 8)
    return [Run(key, 1, place) for key, place in zip(keys, places, strict=True)]


def _read_child(table: Table, inode: Inode, block: int, level: int) -> _Node:
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
        return _Node(level, _pointers(content, header, count, most))
    return _Node(0, list(_extents(content[header:], inode.where, count)))


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
