"""Folders: names and the inodes that they lead to.

Defined here and only here: `names_of`, and `parse_names` and `verified` of one block. Used by
`index` and `files`. Stateless.

Source: Linux kernel documentation, "ext4 Data Structures and Algorithms", Directory Entries.
"""

import stat
import struct
from collections.abc import Iterator
from typing import Final

from store.errors import UnsupportedError
from timefs.guest.ext.checksum import crc32c
from timefs.guest.ext.content import mapped
from timefs.guest.ext.inode import BLOCK_AREA_BYTES, Flag, Inode
from timefs.guest.ext.superblock import Incompatible, Superblock
from timefs.guest.ext.table import Table
from timefs.guest.ext.xattrs import inline_rest
from timefs.guest.extents import each_once
from timefs.guest.names import Refusals
from timefs.guest.posix_volume import Name, possible

_ENTRY: Final = struct.Struct("<IHBB")
_TAIL_MARK: Final = bytes.fromhex("000000000c0000de")
_TAIL_BYTES: Final = 12
_INDEX_COUNTS: Final = (0x20, 8)
"""Where a root's and a node's counts of hash index entries are."""
_KINDS: Final = {
    1: stat.S_IFREG,
    2: stat.S_IFDIR,
    3: stat.S_IFCHR,
    4: stat.S_IFBLK,
    5: stat.S_IFIFO,
    6: stat.S_IFSOCK,
    7: stat.S_IFLNK,
}
_DOTS: Final = (b".", b"..")


def names_of(table: Table, inode: Inode, sought: bytes | None = None) -> Iterator[list[Name]]:
    """A folder's names by block, without `.` and `..`; blocks without `sought` are passed over.

    Raises:
        CorruptError: after all that could be read, if some of it could not.
        UnsupportedError: the names are encrypted.
    """
    if inode.flags & Flag.ENCRYPTED:
        raise UnsupportedError(f"{inode.where}: its names are encrypted by its guest")
    refusals = Refusals()
    inline = inode.flags & Flag.INLINE
    for offset, content in _inline(table, inode) if inline else _blocks(table, inode, refusals):
        if sought is not None and sought not in content:
            continue
        where = f"{inode.where} at {offset}"
        if inline or inode.seed is None or verified(inode.seed, content):
            yield parse_names(table.superblock, content, where, refusals)
        else:
            refusals.add(where, "wrong checksum, or none")
    refusals.end()


def _inline(table: Table, inode: Inode) -> Iterator[tuple[int, bytes]]:
    """The parts of a folder that lie in its inode; the first four bytes are its parent's number."""
    yield 4, inode.area[4:BLOCK_AREA_BYTES]
    yield BLOCK_AREA_BYTES, inline_rest(table, inode)


def _blocks(table: Table, inode: Inode, refusals: Refusals) -> Iterator[tuple[int, bytes]]:
    block_bytes = table.superblock.block_bytes
    content = mapped(table, inode)
    runs = content.runs(0, -(-inode.size // block_bytes))
    for offset, together in each_once(runs, content, inode.where, refusals):
        for at in range(0, len(together), block_bytes):
            if offset + at < inode.size:
                yield offset + at, together[at : at + block_bytes]


def verified(seed: int, content: bytes) -> bool:
    """Whether a block of names, or of the hash index, has the right checksum."""
    tail = len(content) - _TAIL_BYTES
    if content[tail : tail + 8] == _TAIL_MARK:  # an index made of names may still have it
        got = crc32c(seed, content[:tail])
        if content[tail + 8 :] == got.to_bytes(4, "little"):
            return True
    for counts in _INDEX_COUNTS:
        most, count = struct.unpack_from("<HH", content, counts)
        tail = counts + most * 8
        end = counts + count * 8
        if end <= tail <= len(content) - 8:
            got = crc32c(crc32c(seed, content[:end]), content[tail : tail + 4] + bytes(4))
            if content[tail + 4 : tail + 8] == got.to_bytes(4, "little"):
                return True
    return False


def parse_names(
    superblock: Superblock, content: bytes, where: str, refusals: Refusals
) -> list[Name]:
    """The names in a block; those that no system can hold are refused beside the others."""
    typed = superblock.incompatible & Incompatible.FILE_TYPE
    unpack, end = _ENTRY.unpack_from, len(content)
    names: list[Name] = []
    at = 0
    while at + _ENTRY.size <= end:
        number, room, length, kind = unpack(content, at)
        if end >= 65536:
            room = _wide_room(room, end)
        if room < _ENTRY.size + length or room % 4 or at + room > end:
            refusals.add(where, f"the name at {at} has {length} bytes in {room}")
            break
        start = at + _ENTRY.size
        at += room
        if number == 0:
            continue
        name = content[start : start + length]
        if possible(name):
            names.append(Name(name, number, _KINDS.get(kind, 0) if typed else 0))
        elif name not in _DOTS:
            refusals.add(where, f"{name!a} cannot be a name")
    return names


def _wide_room(stored: int, block_bytes: int) -> int:
    """An entry's length in blocks of 64 KiB, which need a bit more than is there."""
    if stored in (0, 65535):
        return block_bytes
    return stored & 65532 | (stored & 3) << 16
