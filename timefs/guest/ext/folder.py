"""Folders: names and the inodes that they lead to.

Defined here and only here: `names_of` and `parent_of`. Used by `files`. Stateless: the hash
tree of a large folder is skipped, because all its names lie in blocks that also read in order.

Source: Linux kernel documentation, "ext4 Data Structures and Algorithms", Directory Entries.
"""

import stat
import struct
from collections.abc import Iterator
from typing import Final

from store.errors import CorruptError, TimefsError, UnsupportedError
from store.image import ExtentKind, Image
from timefs.guest.ext.checksum import crc32c
from timefs.guest.ext.content import mapped
from timefs.guest.ext.inode import BLOCK_AREA_BYTES, Flag, Inode
from timefs.guest.ext.superblock import Incompatible
from timefs.guest.ext.table import Table
from timefs.guest.ext.xattrs import inline_rest
from timefs.guest.posix import Name, possible

_ENTRY: Final = struct.Struct("<IHBB")
_OLD_ENTRY: Final = struct.Struct("<IHH")
_TAIL_MARK: Final = bytes.fromhex("000000000c0000de")
_TAIL_BYTES: Final = 12
_INDEX_COUNTS: Final = (0x20, 8)
"""Where a root's and a node's counts of hash index entries are."""
_PARENT_AT: Final = 12
_KINDS: Final = {
    1: stat.S_IFREG,
    2: stat.S_IFDIR,
    3: stat.S_IFCHR,
    4: stat.S_IFBLK,
    5: stat.S_IFIFO,
    6: stat.S_IFSOCK,
    7: stat.S_IFLNK,
}


def names_of(table: Table, inode: Inode, sought: bytes | None = None) -> Iterator[Name]:
    """A folder's names, without `.` and `..`; blocks that do not hold `sought` are passed over.

    Raises:
        CorruptError: after all that could be read, if some of it could not.
        UnsupportedError: the names are encrypted.
    """
    if inode.flags & Flag.ENCRYPTED:
        raise UnsupportedError(f"{inode.where}: its names are encrypted by its guest")
    refusal: TimefsError | None = None
    for where, piece in _pieces(table, inode):
        try:
            content = piece()
            if sought is None or sought in content:
                yield from _parse(table, content, where)
        except CorruptError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal


def parent_of(table: Table, inode: Inode) -> int:
    """The inode number of the folder that a folder says it lies in."""
    if inode.flags & Flag.INLINE:
        return int.from_bytes(inode.area[:4], "little")
    block = mapped(table, inode).read(0, table.superblock.block_bytes)
    number, _, length, _ = _ENTRY.unpack_from(block.ljust(24, b"\0"), _PARENT_AT)
    if length & 0xFF != 2 or block[20:22] != b"..":
        raise CorruptError(f"{inode.where}: expected its parent's name, got {block[20:22]!r}")
    return int(number)


class _Block:
    """One block of a folder, read when it is wanted."""

    def __init__(self, table: Table, inode: Inode, image: Image, offset: int) -> None:
        self._table = table
        self._inode = inode
        self._image = image
        self._offset = offset

    def __call__(self) -> bytes:
        content = self._image.read(self._offset, self._table.superblock.block_bytes)
        if self._inode.seed is not None:
            verify(self._inode.seed, content, f"{self._inode.where} at {self._offset}")
        return content


class _Inline:
    """Names that lie in the inode itself."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __call__(self) -> bytes:
        return self._content


def _pieces(table: Table, inode: Inode) -> Iterator[tuple[str, "_Block | _Inline"]]:
    where = inode.where
    if inode.flags & Flag.INLINE:
        yield where, _Inline(inode.area[4:BLOCK_AREA_BYTES])
        rest = inline_rest(table, inode)
        if rest:
            yield where, _Inline(rest)
        return
    block_bytes = table.superblock.block_bytes
    if inode.size > table.volume.size or inode.size % block_bytes:
        raise CorruptError(f"{where}: a folder of {inode.size} bytes is absurd")
    image = mapped(table, inode)
    offset = 0
    for extent in image.extents(0, image.size):
        if extent.kind == ExtentKind.ZERO:
            continue
        offset = max(offset, extent.offset - extent.offset % block_bytes)
        while offset < extent.offset + extent.length:
            yield f"{where} at {offset}", _Block(table, inode, image, offset)
            offset += block_bytes


def verify(seed: int, content: bytes, where: str) -> None:
    """Check a block of names, or of the hash index, by its checksum.

    Raises:
        CorruptError: it is wrong, or there is none.
    """
    tail = len(content) - _TAIL_BYTES
    if content[tail : tail + 8] == _TAIL_MARK:  # an index made of names may still have it
        got = crc32c(seed, content[:tail])
        if content[tail + 8 :] == got.to_bytes(4, "little"):
            return
    for counts in _INDEX_COUNTS:
        most, count = struct.unpack_from("<HH", content, counts)
        tail = counts + most * 8
        end = counts + count * 8
        if end <= tail <= len(content) - 8:
            got = crc32c(crc32c(seed, content[:end]), content[tail : tail + 4] + bytes(4))
            if content[tail + 4 : tail + 8] == got.to_bytes(4, "little"):
                return
    raise CorruptError(f"{where}: wrong checksum, or none")


def _parse(table: Table, content: bytes, where: str) -> Iterator[Name]:
    """The names in a block; those that no system can hold are damage, after all the others."""
    typed = bool(table.superblock.incompatible & Incompatible.FILE_TYPE)
    at = 0
    refused: bytes | None = None
    while at + _ENTRY.size <= len(content):
        number, room, length, kind = _ENTRY.unpack_from(content, at)
        if not typed:
            _, _, length = _OLD_ENTRY.unpack_from(content, at)
            kind = 0
        room = _room(room, len(content))
        if room < _ENTRY.size + length or room % 4 or at + room > len(content):
            raise CorruptError(f"{where}: the name at {at} has {length} bytes in {room}")
        name = content[at + _ENTRY.size : at + _ENTRY.size + length]
        at += room
        if number == 0 or name in (b".", b".."):
            continue
        if not possible(name):
            refused = name
        else:
            yield Name(name, number, _KINDS.get(kind, 0))
    if refused is not None:
        raise CorruptError(f"{where}: {refused!a} cannot be a name")


def _room(stored: int, block_bytes: int) -> int:
    """An entry's length; blocks of 64 KiB need a bit more than is there."""
    if block_bytes < 65536:
        return stored
    if stored in (0, 65535):
        return block_bytes
    return stored & 65532 | (stored & 3) << 16
