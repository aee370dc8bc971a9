"""Folders: names in the inode or in blocks, and the inodes that they lead to.

Defined here and only here: `names_of` and `parent_of`. Used by `files`. Stateless: the hash index
of a large folder is skipped, because all its names lie in blocks that also read in order.

Source: "XFS Algorithms & Data Structures", 3rd edition, Directories.
"""

import stat
import struct
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from store.errors import CorruptError
from store.image import ExtentKind, Image
from timefs.guest.posix import Name, possible
from timefs.guest.xfs.content import mapped
from timefs.guest.xfs.inode import Form, Inode, Table
from timefs.guest.xfs.superblock import CHECKSUMMED, checked

FOLDER_BYTES_MAX: Final = 32 << 30
"""Where the index of a folder begins in its address space."""

UNUSED: Final = 0xFFFF
_BLOCK_MAGICS: Final = (b"XD2B", b"XDB3")
"""Of a folder that is one block, with an index at its end."""
_DATA_MAGICS: Final = (b"XD2D", b"XDD3")
_HEADER_BYTES: Final = {4: 16, 5: 64}
_CHECKSUM_AT: Final = 4
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


def names_of(table: Table, inode: Inode, sought: bytes | None = None) -> Iterator[Name]:
    """A folder's names, without `.` and `..`; blocks that do not hold `sought` are passed over.

    Raises:
        CorruptError: after all that could be read, if some of it could not.
    """
    if inode.data.form == Form.LOCAL:
        yield from _possible(_short_names(table, inode), inode.where)
        return
    refusal: CorruptError | None = None
    for where, piece in _blocks(table, inode):
        try:
            content = piece()
            if sought is None or sought in content:
                yield from _possible(_block_names(table, content, where), where)
        except CorruptError as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal


def _possible(names: Iterator[Name], where: str) -> Iterator[Name]:
    """The names that a system can hold; the others are damage, after all of them."""
    refused: bytes | None = None
    for name in names:
        if name.name in _DOTS:
            continue
        if possible(name.name):
            yield name
        else:
            refused = name.name
    if refused is not None:
        raise CorruptError(f"{where}: {refused!a} cannot be a name")


def parent_of(table: Table, inode: Inode) -> int:
    """The inode number of the folder that a folder says it lies in."""
    if inode.data.form == Form.LOCAL:
        area = inode.data.area
        return int.from_bytes(area[2 : 10 if area[1] else 6], "big")
    for where, piece in _blocks(table, inode):
        for name in _block_names(table, piece(), where):
            if name.name == b"..":
                return name.number
        break
    raise CorruptError(f"{inode.where}: expected its parent's name, found none")


def _short_names(table: Table, inode: Inode) -> Iterator[Name]:
    area = inode.data.area[: inode.size]
    if len(area) < 6:
        raise CorruptError(f"{inode.where}: a folder of {len(area)} bytes")
    count, width = area[0], 8 if area[1] else 4
    typed = table.superblock.file_types
    at = 2 + width
    for _ in range(count):
        length = area[at] if at < len(area) else 0
        end = at + 3 + length + typed + width
        if length == 0 or end > len(area):
            raise CorruptError(f"{inode.where}: a name at {at} ends beyond the folder")
        name = area[at + 3 : at + 3 + length]
        kind = area[at + 3 + length] if typed else 0
        yield Name(name, int.from_bytes(area[end - width : end], "big"), _KINDS.get(kind, 0))
        at = end


def _blocks(table: Table, inode: Inode) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The blocks that hold names, each read when it is wanted."""
    step = table.superblock.folder_block_bytes
    if inode.size > min(FOLDER_BYTES_MAX, table.volume.size) or inode.size % step:
        raise CorruptError(f"{inode.where}: a folder of {inode.size} bytes is absurd")
    image = mapped(table, inode, inode.data, inode.size)
    offset = 0
    for extent in image.extents(0, image.size):
        if extent.kind == ExtentKind.ZERO:
            continue
        offset = max(offset, extent.offset - extent.offset % step)
        while offset < extent.offset + extent.length:
            where = f"{inode.where} at {offset}"
            yield where, partial(_read_block, table, image, offset, where)
            offset += step


def _read_block(table: Table, image: Image, offset: int, where: str) -> bytes:
    content = image.read(offset, table.superblock.folder_block_bytes)
    if content[:4] not in _BLOCK_MAGICS + _DATA_MAGICS:
        raise CorruptError(f"{where}: expected a block of names, got {content[:4]!r}")
    if table.superblock.version == CHECKSUMMED and not checked(content, _CHECKSUM_AT):
        raise CorruptError(f"{where}: wrong checksum")
    return content


def _block_names(table: Table, content: bytes, where: str) -> Iterator[Name]:
    typed = table.superblock.file_types
    at, end = _HEADER_BYTES[table.superblock.version], len(content)
    if content[:4] in _BLOCK_MAGICS:
        end -= 8 + 8 * int.from_bytes(content[-8:-4], "big")
    while at + 8 < end:
        if int.from_bytes(content[at : at + 2], "big") == UNUSED:
            room = int.from_bytes(content[at + 2 : at + 4], "big")
        else:
            (number,) = struct.unpack_from(">Q", content, at)
            length = content[at + 8]
            room = -(-(8 + 1 + length + typed + 2) // 8) * 8
            kind = content[at + 9 + length] if typed and at + room <= end else 0
            if length == 0 or at + room > end:
                raise CorruptError(f"{where}: the name at {at} has {length} bytes")
            name = content[at + 9 : at + 9 + length]
            yield Name(name, number, _KINDS.get(kind, 0))
        if room < 8 or room % 8 or at + room > end:
            raise CorruptError(f"{where}: an entry of {room} bytes at {at}")
        at += room
