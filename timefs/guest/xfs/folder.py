"""Folders: names in the inode or in blocks, and the inodes that they lead to.

Defined here and only here: `names_of`, and `name_at` and `verified` of one block. Used by `index`
and `files`. Stateless.

Source: "XFS Algorithms & Data Structures", 3rd edition, Directories.
"""

import stat
import struct
from collections.abc import Iterator
from typing import Final

from store.errors import CorruptError
from timefs.guest.extents import each_once
from timefs.guest.names import Refusals
from timefs.guest.posix_volume import Name, possible
from timefs.guest.xfs.content import mapped
from timefs.guest.xfs.inode import Form, Inode, Table
from timefs.guest.xfs.superblock import CHECKSUMMED, Superblock, checked

FOLDER_BYTES_MAX: Final = 32 << 30
"""Where the index of a folder begins in its address space."""

UNUSED: Final = 0xFFFF
BLOCK_MAGICS: Final = (b"XD2B", b"XDB3")
"""Of a folder that is one block, with an index at its end."""
_DATA_MAGICS: Final = (b"XD2D", b"XDD3")
_HEADER_BYTES: Final = {4: 16, 5: 64}
_CHECKSUM_AT: Final = 4
_ENTRY: Final = struct.Struct(">QB")
_ROOM: Final = struct.Struct(">HH")
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
    """
    refusals = Refusals()
    if inode.data.form == Form.LOCAL:
        yield _short_names(table.superblock, inode, refusals)
    else:
        for offset, content in _blocks(table, inode, refusals):
            where = f"{inode.where} at {offset}"
            if not verified(table.superblock, content):
                refusals.add(where, f"no block of names, or a wrong checksum: {content[:4]!r}")
            elif sought is None or sought in content:
                yield _block_names(table.superblock, content, where, refusals)
    refusals.end()


def _add(names: list[Name], name: Name, where: str, refusals: Refusals) -> None:
    """Add a name that a system can hold; what cannot be one is damage."""
    if possible(name.name):
        names.append(name)
    elif name.name not in _DOTS:
        refusals.add(where, f"{name.name!a} cannot be a name")


def _short_names(superblock: Superblock, inode: Inode, refusals: Refusals) -> list[Name]:
    """The names of a folder that lies in its inode."""
    area = inode.data.area[: inode.size]
    names: list[Name] = []
    if len(area) < 6:
        refusals.add(inode.where, f"a folder of {len(area)} bytes")
        return names
    count, width = area[0], 8 if area[1] else 4
    typed = superblock.file_types
    at = 2 + width
    for _ in range(count):
        length = area[at] if at < len(area) else 0
        end = at + 3 + length + typed + width
        if length == 0 or end > len(area):
            refusals.add(inode.where, f"a name at {at} ends beyond the folder")
            break
        name = area[at + 3 : at + 3 + length]
        kind = _KINDS.get(area[at + 3 + length], 0) if typed else 0
        number = int.from_bytes(area[end - width : end], "big")
        _add(names, Name(name, number, kind), inode.where, refusals)
        at = end
    return names


def _blocks(table: Table, inode: Inode, refusals: Refusals) -> Iterator[tuple[int, bytes]]:
    """The folder's blocks, of which each may be several blocks of the volume."""
    superblock = table.superblock
    step = superblock.folder_block_bytes
    size = min(inode.size, FOLDER_BYTES_MAX)
    image = mapped(table, inode, inode.data, size)
    runs = image.runs(0, -(-size // superblock.block_bytes))
    begun, start = b"", 0
    for offset, together in each_once(runs, image, inode.where, refusals):
        if begun and offset != start + len(begun):
            refusals.add(inode.where, f"its block at {start} ends after {len(begun)} bytes")
            begun = b""
        if not begun:
            start = offset + -offset % step
        begun += together[start - offset :] if start > offset else together
        while len(begun) >= step:
            yield start, begun[:step]
            begun, start = begun[step:], start + step
    if begun:
        refusals.add(inode.where, f"its block at {start} ends after {len(begun)} bytes")


def verified(superblock: Superblock, content: bytes) -> bool:
    """Whether a block is one of names and has the right checksum."""
    if content[:4] not in BLOCK_MAGICS + _DATA_MAGICS:
        return False
    return superblock.version != CHECKSUMMED or checked(content, _CHECKSUM_AT)


def _block_names(
    superblock: Superblock, content: bytes, where: str, refusals: Refusals
) -> list[Name]:
    names: list[Name] = []
    at, end = _HEADER_BYTES[superblock.version], len(content)
    if content[:4] in BLOCK_MAGICS:
        end -= 8 + 8 * int.from_bytes(content[-8:-4], "big")
    while at + 8 < end:
        unused, room = _ROOM.unpack_from(content, at)
        if unused != UNUSED:
            try:
                name, room = name_at(superblock, content, at)
            except CorruptError as error:
                refusals.add(where, str(error))
                break
            _add(names, name, where, refusals)
        if room < 8 or room % 8 or at + room > end:
            refusals.add(where, f"an entry of {room} bytes at {at}")
            break
        at += room
    return names


def name_at(superblock: Superblock, content: bytes, at: int) -> tuple[Name, int]:
    """The name that begins at a place of a block, and the bytes of its entry.

    Raises:
        CorruptError: there is none.
    """
    if at + _ENTRY.size > len(content):
        raise CorruptError(f"a name at {at}, beyond the end")
    number: int
    length: int
    number, length = _ENTRY.unpack_from(content, at)
    typed = superblock.file_types
    end = at + 9 + length
    room = 8 + 1 + length + typed + 2 + 7 & ~7
    if length == 0 or at + room > len(content):
        raise CorruptError(f"the name at {at} has {length} bytes")
    kind = _KINDS.get(content[end], 0) if typed else 0
    return Name(content[at + 9 : end], number, kind), room
