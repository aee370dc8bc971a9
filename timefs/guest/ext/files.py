"""A volume's files by their inode numbers.

Defined here and only here: `ExtFiles`. Used by `volume`. Thread-safe: see `Table`.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from store.errors import CorruptError
from store.image import BytesImage, Image
from timefs.guest.ext.content import mapped
from timefs.guest.ext.folder import names_of
from timefs.guest.ext.index import indexed
from timefs.guest.ext.inode import BLOCK_AREA_BYTES, SECTOR_BYTES, Flag, Inode
from timefs.guest.ext.superblock import Incompatible
from timefs.guest.ext.survey import survey
from timefs.guest.ext.table import Table
from timefs.guest.ext.xattrs import inline_rest, read_xattrs
from timefs.guest.posix_volume import Name, PosixVolume, Survey
from timefs.tree import Attributes

ROOT_NUMBER: Final = 2


class ExtFiles(PosixVolume):
    """All files of one volume."""

    def __init__(self, table: Table, state: str, *, settled: bool) -> None:
        """`settled`: no journal holds changes that the volume is without."""
        self._table = table
        self._state = state
        self._settled = settled

    @property
    def root_number(self) -> int:
        return ROOT_NUMBER

    @property
    def state(self) -> str:
        return self._state

    def attributes(self, number: int) -> Attributes:
        inode = self._table.inode(number)
        return Attributes(
            mode=inode.mode,
            size=inode.size,
            allocated_bytes=_allocated_bytes(inode),
            links=inode.links,
            mtime_ns=inode.mtime_ns,
            atime_ns=inode.atime_ns,
            ctime_ns=inode.ctime_ns,
            created_ns=inode.created_ns,
            owner=inode.owner,
            group=inode.group,
            device=_device(inode),
        ).checked(inode.where)

    def xattrs(self, number: int) -> Mapping[bytes, bytes]:
        return read_xattrs(self._table, self._table.inode(number))

    def content(self, number: int) -> Image:
        inode = self._table.inode(number)
        if not inode.flags & Flag.INLINE:
            return mapped(self._table, inode)
        content = inode.area[: inode.size]
        if inode.size > len(content):
            content += inline_rest(self._table, inode)
        if len(content) < inode.size:
            raise CorruptError(
                f"{inode.where}: expected {inode.size} bytes, it holds {len(content)}"
            )
        return BytesImage(content[: inode.size])

    def target(self, number: int) -> bytes:
        inode = self._table.inode(number)
        if inode.flags & Flag.ENCRYPTED:
            return self.content(number).read(0, inode.size)
        if self._is_fast(inode):
            if inode.size >= BLOCK_AREA_BYTES or inode.area.find(0) != inode.size:
                raise CorruptError(f"{inode.where}: a link of {inode.size} bytes in the inode")
            return inode.area[: inode.size]
        if inode.flags & Flag.INLINE:
            return self.content(number).read(0, inode.size)
        block_bytes = self._table.superblock.block_bytes
        return mapped(self._table, inode).read(0, min(inode.size, block_bytes - 1))

    def _is_fast(self, inode: Inode) -> bool:
        """Whether a link's text lies in the inode's area, as the kernel decides it.

        It has no blocks but one of attributes; where attributes may have inodes, its size decides.
        Source: the behaviour of a real mount.
        """
        superblock = self._table.superblock
        if superblock.incompatible & Incompatible.VALUE_INODES:
            return 0 < inode.size < BLOCK_AREA_BYTES
        attributes = superblock.cluster_bytes if inode.xattr_block else 0
        return not inode.flags & Flag.INLINE and inode.allocated_bytes == attributes

    def names(self, number: int, sought: bytes | None = None) -> Iterator[list[Name]]:
        return names_of(self._table, self._table.inode(number), sought)

    def indexed(self, number: int, name: bytes) -> Sequence[Name] | None:
        found = indexed(self._table, self._table.inode(number), name)
        return found if found or self._settled else None

    def survey(self, numbers: Sequence[int]) -> Survey:
        return survey(self._table, numbers)


def _allocated_bytes(inode: Inode) -> int:
    """A file's content within the inode counts, as in the kernel: else it would seem a hole."""
    inline = inode.size if inode.flags & Flag.INLINE and stat.S_ISREG(inode.mode) else 0
    return inode.allocated_bytes + -(-inline // SECTOR_BYTES) * SECTOR_BYTES


def _device(inode: Inode) -> int:
    """The device's number; the old form has 8 bits a part, the new one more."""
    if not stat.S_ISCHR(inode.mode) and not stat.S_ISBLK(inode.mode):
        return 0
    old = int.from_bytes(inode.area[:4], "little")
    if old:
        return os.makedev(old >> 8 & 0xFF, old & 0xFF)
    new = int.from_bytes(inode.area[4:8], "little")
    return os.makedev(new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)
