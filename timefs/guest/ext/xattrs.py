"""Extended attributes, in the inode, in a block of their own, or each in an inode of its own.

Defined here and only here: `read_xattrs` and `inline_rest`. Used by `folder` and `files`.
Stateless.

Source: Linux kernel documentation, "ext4 Data Structures and Algorithms", Extended Attributes;
include/uapi/linux/posix_acl_xattr.h for what an access list looks like to a program.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, NamedTuple

from store.errors import CorruptError
from timefs.guest.ext.checksum import crc32c
from timefs.guest.ext.content import mapped
from timefs.guest.ext.inode import Flag, Inode
from timefs.guest.ext.table import Table
from timefs.guest.xattrs import LazyXattrs

MAGIC: Final = 0xEA020000
VALUE_BYTES_MAX: Final = 64 << 10
_BLOCK_HEADER_BYTES: Final = 32
_BLOCK_CHECKSUM: Final = slice(0x10, 0x14)
_ENTRY: Final = struct.Struct("<BBHIII")
_ACCESS: Final = (2, 3)
_HIDDEN: Final = 9
"""Attributes of encryption."""
_PREFIXES: Final = {
    0: b"",
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
    8: b"system.richacl",
}
_INLINE: Final = b"system.data"
_NAMED_TAGS: Final = (2, 8)
"""Entries of an access list that name a user or a group."""

_Value = bytes | Callable[[], bytes]
"""A value, or the way to it where it has an inode of its own."""


class _Place(NamedTuple):
    """Where entries are, and what their values' offsets count from."""

    content: bytes
    first: int
    origin: int
    where: str


def read_xattrs(table: Table, inode: Inode) -> Mapping[bytes, bytes]:
    """All attributes that a program would see, by full name.

    Raises:
        CorruptError: they contradict themselves; of a value, when it is asked for.
    """
    found: dict[bytes, _Value] = {}
    for place in _places(table, inode):
        found.update(_entries(table, place))
    found.pop(_INLINE, None)
    return LazyXattrs(found)


def inline_rest(table: Table, inode: Inode) -> bytes:
    """What of an inode's content does not fit into its 60 bytes."""
    for place in _places(table, inode):
        for name, value in _entries(table, place):
            if name == _INLINE and isinstance(value, bytes):
                return value
    return b""


def _places(table: Table, inode: Inode) -> Iterator[_Place]:
    if inode.extra[:4] == MAGIC.to_bytes(4, "little"):
        yield _Place(inode.extra, 4, 4, inode.where)
    if inode.xattr_block:
        where = f"{inode.where}: attribute block {inode.xattr_block}"
        content = table.block(inode.xattr_block, where)
        if content[:4] != MAGIC.to_bytes(4, "little"):
            raise CorruptError(f"{where}: expected its magic, got {content[:4]!r}")
        seed = table.superblock.seed
        if seed is not None:
            cleared = content[:0x10] + bytes(4) + content[0x14:]
            got = crc32c(crc32c(seed, inode.xattr_block.to_bytes(8, "little")), cleared)
            if content[_BLOCK_CHECKSUM] != got.to_bytes(4, "little"):
                raise CorruptError(f"{where}: wrong checksum")
        yield _Place(content, _BLOCK_HEADER_BYTES, 0, where)


def _entries(table: Table, place: _Place) -> Iterator[tuple[bytes, _Value]]:
    content, at, origin, where = place
    while content[at : at + 4] not in (bytes(4), b""):
        if at + _ENTRY.size > len(content):
            raise CorruptError(f"{where}: attributes end without an end mark")
        length, index, offset, value_inode, size, _ = _ENTRY.unpack_from(content, at)
        name = content[at + _ENTRY.size : at + _ENTRY.size + length]
        at += -(-(_ENTRY.size + length) // 4) * 4
        if index == _HIDDEN:
            continue
        if index not in _PREFIXES or len(name) < length or size > VALUE_BYTES_MAX or 0 in name:
            raise CorruptError(f"{where}: attribute {name!r} of kind {index}, {size} bytes: absurd")
        if value_inode:
            yield _PREFIXES[index] + name, partial(_value_inode, table, value_inode, size, where)
            continue
        value = content[origin + offset : origin + offset + size]
        if len(value) < size:
            raise CorruptError(f"{where}: attribute {name!r} ends beyond its place")
        if index in _ACCESS:
            value = _access_list(value, where)
        yield _PREFIXES[index] + name, value


def _value_inode(table: Table, number: int, size: int, where: str) -> bytes:
    inode = table.inode(number)
    if not inode.flags & Flag.VALUE or inode.size != size:
        raise CorruptError(f"{where}: expected an attribute's value of {size} in {inode.where}")
    return mapped(table, inode).read(0, size)


def _access_list(stored: bytes, where: str) -> bytes:
    """An access list as programs know it: every entry with an id."""
    if stored[:4] != (1).to_bytes(4, "little"):
        raise CorruptError(f"{where}: access list: expected version 1, got {stored[:4]!r}")
    shown = bytearray((2).to_bytes(4, "little"))
    at = 4
    while at < len(stored):
        named = stored[at] in _NAMED_TAGS
        entry = stored[at : at + (8 if named else 4)]
        if len(entry) < (8 if named else 4):
            raise CorruptError(f"{where}: access list of {len(stored)} bytes is cut short")
        shown += entry.ljust(8, b"\xff")
        at += len(entry)
    return bytes(shown)
