"""A volume's files by their inode numbers.

Defined here and only here: `XfsFiles`. Used by `volume`. Thread-safe: see `Table`.

Source: "XFS Algorithms & Data Structures", 3rd edition, Symbolic Links.
"""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from store.errors import CorruptError
from store.image import Image
from timefs.guest.posix_volume import Name, PosixVolume, Survey
from timefs.guest.xfs.content import mapped
from timefs.guest.xfs.folder import names_of
from timefs.guest.xfs.index import indexed
from timefs.guest.xfs.inode import Form, Inode, Table
from timefs.guest.xfs.log import CLEAN, read_log_state
from timefs.guest.xfs.superblock import CHECKSUMMED, checked
from timefs.guest.xfs.survey import survey
from timefs.guest.xfs.xattrs import read_xattrs
from timefs.tree import Attributes

LINK_BYTES_MAX: Final = 1024
LINK_MAGIC: Final = b"XSLM"
LINK_HEADER_BYTES: Final = 56
LINK_CHECKSUM_AT: Final = 12


class XfsFiles(PosixVolume):
    """All files of one volume."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._log_state: str | None = None

    @property
    def root_number(self) -> int:
        return self._table.superblock.root_inode

    @property
    def state(self) -> str:
        repair = "; it needs repair" if self._table.superblock.needs_repair else ""
        return self._read_log_state() + repair

    def _read_log_state(self) -> str:
        """What the log says, read when it is wanted first."""
        if self._log_state is None:
            self._log_state = read_log_state(self._table.volume, self._table.superblock)
        return self._log_state

    def attributes(self, number: int) -> Attributes:
        inode = self._table.inode(number)
        return Attributes(
            mode=inode.mode,
            size=inode.size,
            allocated_bytes=inode.allocated_bytes,
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
        return mapped(self._table, inode, inode.data, inode.size)

    def target(self, number: int) -> bytes:
        inode = self._table.inode(number)
        if not 0 < inode.size <= LINK_BYTES_MAX:
            raise CorruptError(f"{inode.where}: a link of {inode.size} bytes")
        if inode.data.form == Form.LOCAL:
            return inode.data.area[: inode.size]
        block_bytes = self._table.superblock.block_bytes
        blocks = -(-inode.size // (block_bytes - LINK_HEADER_BYTES))
        image = mapped(self._table, inode, inode.data, blocks * block_bytes)
        target = b""
        for run in image.runs(0, blocks):  # each begins with a header of its own
            content = image.read(run.first * block_bytes, run.blocks * block_bytes)
            if self._table.superblock.version == CHECKSUMMED:
                if content[:4] != LINK_MAGIC or not checked(content, LINK_CHECKSUM_AT):
                    raise CorruptError(f"{inode.where}: a link's text: wrong checksum")
                content = content[LINK_HEADER_BYTES:]
            target += content
        return target[: inode.size]

    def names(self, number: int, sought: bytes | None = None) -> Iterator[list[Name]]:
        return names_of(self._table, self._table.inode(number), sought)

    def indexed(self, number: int, name: bytes) -> Sequence[Name] | None:
        found = indexed(self._table, self._table.inode(number), name)
        return found if found or found is None or self._read_log_state() == CLEAN else None

    def survey(self, numbers: Sequence[int]) -> Survey:
        return survey(self._table, numbers)


def _device(inode: Inode) -> int:
    if not stat.S_ISCHR(inode.mode) and not stat.S_ISBLK(inode.mode):
        return 0
    stored = int.from_bytes(inode.data.area[:4], "big")
    return os.makedev(stored >> 18 & 0xFFF, stored & 0x3FFFF)  # Linux has no larger major number
