"""Extended attributes: in the inode, in leaves, or each in blocks of its own.

Defined here and only here: `read_xattrs`. Used by `files`. Stateless.

Source: "XFS Algorithms & Data Structures", 3rd edition, Extended Attributes; for access lists
include/uapi/linux/posix_acl_xattr.h.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, NamedTuple

from store.errors import CorruptError
from store.image import Image
from timefs.guest.xattrs import LazyXattrs
from timefs.guest.xfs.content import Content, mapped
from timefs.guest.xfs.inode import Form, Inode, Table
from timefs.guest.xfs.superblock import CHECKSUMMED, checked

VALUE_BYTES_MAX: Final = 64 << 10
IN_LEAF: Final = 0x1
TRUSTED: Final = 0x2
SECURE: Final = 0x4
PARENT: Final = 0x8
INCOMPLETE: Final = 0x80
LEAVES_MAX: Final = 1 << 16
DEPTH_MAX: Final = 8

_LEAF: Final = {0xFBEE: (12, 32), 0x3BEE: (56, 80)}
"""Where a leaf's count is, and its entries."""
_NODE: Final = {0xFEBE: (12, 16), 0x3EBE: (56, 64)}
_CHECKSUM_AT: Final = 12
_REMOTE: Final = b"XARM"
_REMOTE_HEADER_BYTES: Final = 56
_ENTRY: Final = struct.Struct(">IHBB")
_LISTS: Final = {
    b"SGI_ACL_FILE": b"system.posix_acl_access",
    b"SGI_ACL_DEFAULT": b"system.posix_acl_default",
}
_LIST_ENTRY: Final = struct.Struct(">IIHH")
_NAMED_TAGS: Final = (2, 8)


class _Found(NamedTuple):
    """One attribute as it is stored; a value elsewhere is a block of the fork and a length."""

    flags: int
    name: bytes
    value: bytes
    elsewhere: tuple[int, int] | None


def read_xattrs(table: Table, inode: Inode) -> Mapping[bytes, bytes]:
    """All attributes that a program would see, by full name.

    Raises:
        CorruptError: they contradict themselves; of a value, when it is asked for.
    """
    shown: dict[bytes, bytes | Callable[[], bytes]] = {}
    fork = inode.attributes
    if fork is None or (fork.form == Form.EXTENTS and fork.extents == 0):
        return {}
    if fork.form == Form.LOCAL:
        stored, image = _short(fork.area, inode.where), None
    else:
        image = mapped(table, inode, fork, LEAVES_MAX * table.superblock.block_bytes)
        stored = _leaves(table, image, inode.where)
    for found in stored:
        if found.flags & (INCOMPLETE | PARENT):
            continue
        value: bytes | Callable[[], bytes] = found.value
        if found.elsewhere is not None:
            assert image is not None
            value = partial(_remote, table, image, found.elsewhere, inode.where)
        if found.flags & TRUSTED:
            shown[b"trusted." + found.name] = value
            if found.name in _LISTS:
                shown[_LISTS[found.name]] = partial(_access_list, value, inode.where)
        else:
            prefix = b"security." if found.flags & SECURE else b"user."
            shown[prefix + found.name] = value
    return LazyXattrs(shown)


def _short(area: bytes, where: str) -> Iterator[_Found]:
    total, count = int.from_bytes(area[:2], "big"), area[2] if len(area) > 2 else 0
    at = 4
    for _ in range(count):
        if at + 3 > len(area):
            raise CorruptError(f"{where}: attributes end beyond their {total} bytes")
        name_length, value_length, flags = area[at : at + 3]
        middle = at + 3 + name_length
        end = middle + value_length
        if name_length == 0 or end > len(area):
            raise CorruptError(f"{where}: an attribute ends beyond its {total} bytes")
        yield _Found(flags, area[at + 3 : middle], area[middle:end], None)
        at = end


def _leaves(table: Table, image: Image, where: str) -> Iterator[_Found]:
    """The attributes of all leaves, from the first on."""
    number, depth, seen = 0, 0, set[int]()
    while True:
        content = _block(table, image, number, where)
        magic = int.from_bytes(content[8:10], "big")
        if magic in _NODE and depth < DEPTH_MAX:
            depth += 1
            number = int.from_bytes(content[_NODE[magic][1] + 4 : _NODE[magic][1] + 8], "big")
            continue
        if magic not in _LEAF or number in seen:
            raise CorruptError(f"{where}: attributes: expected a leaf at {number}, got {magic:#x}")
        seen.add(number)
        yield from _leaf(content, _LEAF[magic], where)
        number = int.from_bytes(content[:4], "big")
        if number == 0:
            return


def _block(table: Table, image: Image, number: int, where: str) -> bytes:
    block_bytes = table.superblock.block_bytes
    content = image.read(number * block_bytes, block_bytes)
    if len(content) < block_bytes or (
        table.superblock.version == CHECKSUMMED and not checked(content, _CHECKSUM_AT)
    ):
        raise CorruptError(f"{where}: attributes: wrong checksum at {number}, or no block")
    return content


def _leaf(content: bytes, places: tuple[int, int], where: str) -> Iterator[_Found]:
    count = int.from_bytes(content[places[0] : places[0] + 2], "big")
    if places[1] + count * _ENTRY.size > len(content):
        raise CorruptError(f"{where}: attributes: {count} in a leaf are absurd")
    for index in range(count):
        _, at, flags, _ = _ENTRY.unpack_from(content, places[1] + index * _ENTRY.size)
        if flags & IN_LEAF:
            length, name_length = struct.unpack(">HB", content[at : at + 3].ljust(3, b"\0"))
            middle = at + 3 + name_length
            elsewhere = None
            value = content[middle : middle + length]
        else:
            block, length, name_length = struct.unpack(">IIB", content[at : at + 9].ljust(9, b"\0"))
            middle = at + 9 + name_length
            elsewhere, value = (block, length), b""
        name = content[middle - name_length : middle]
        inside = len(value) == length if elsewhere is None else length <= VALUE_BYTES_MAX
        if not inside or len(name) < name_length or not name or 0 in name:
            raise CorruptError(f"{where}: an attribute ends beyond its leaf")
        yield _Found(flags, name, value, elsewhere)


def _remote(table: Table, image: Content, place: tuple[int, int], where: str) -> bytes:
    """A value in blocks of its own, which have headers in version 5."""
    block_bytes = table.superblock.block_bytes
    at, length = place[0] * block_bytes, place[1]
    if not image.holds(place[0], -(-length // block_bytes)):
        raise CorruptError(f"{where}: attributes: a value in blocks that were never written")
    if table.superblock.version != CHECKSUMMED:
        return image.read(at, length)
    value = b""
    while len(value) < length:
        content = image.read(at, block_bytes)
        if content[:4] != _REMOTE or not checked(content, _CHECKSUM_AT):
            raise CorruptError(f"{where}: an attribute's value: wrong checksum")
        part = content[_REMOTE_HEADER_BYTES : _REMOTE_HEADER_BYTES + length - len(value)]
        value += part
        at += block_bytes
    return value


def _access_list(value: bytes | Callable[[], bytes], where: str) -> bytes:
    """An access list as programs know it."""
    stored = value if isinstance(value, bytes) else value()
    count = int.from_bytes(stored[:4], "big")
    if len(stored) < 4 + count * _LIST_ENTRY.size:
        raise CorruptError(f"{where}: an access list of {count} entries is cut short")
    shown = bytearray((2).to_bytes(4, "little"))
    for index in range(count):
        tag, number, permissions, _ = _LIST_ENTRY.unpack_from(stored, 4 + index * _LIST_ENTRY.size)
        number = number if tag in _NAMED_TAGS else 0xFFFFFFFF
        shown += struct.pack("<HHI", tag & 0xFFFF, permissions, number)
    return bytes(shown)
