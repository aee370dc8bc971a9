"""Inodes: what the volume keeps of a file besides its name and its bytes.

Defined here and only here: `Inode`, `Fork` and `Table`. Used by every module above it in this
package. Thread-safe: what is held is immutable or a bounded cache.

Source: "XFS Algorithms & Data Structures", 3rd edition, On-disk Inode, Timestamps.
"""

import struct
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache, partial
from typing import Final, NamedTuple

from store.errors import CorruptError
from store.image import Image, read_exactly
from timefs.guest.xfs.superblock import CHECKSUMMED, Superblock, checked

SECOND_NS: Final = 1_000_000_000
BIG_TIME_START_NS: Final = -(1 << 31) * SECOND_NS
MAGIC: Final = b"IN"
CORE_BYTES: Final = {1: 100, 2: 100, 3: 176}
CHECKSUM_AT: Final = 100
REALTIME: Final = 1
BIG_TIME: Final = 0x8
WIDE_COUNTS: Final = 0x10
BATCH_BYTES: Final = 4096
BATCHES_MAX: Final = 256
INODES_MAX: Final = 1024

_FIELDS: Final = struct.Struct(">2sHBBHIII4xQ8s8s8sQQ4xIHBb6xHI")
_VERSION_3: Final = struct.Struct(">Q16x8sQ")
"""From byte 120: second flags, creation, the inode's own number."""


class Form(IntEnum):
    """Where a fork's content is."""

    DEVICE = 0
    LOCAL = 1
    EXTENTS = 2
    TREE = 3


class Fork(NamedTuple):
    """One of an inode's two contents: its data or its attributes."""

    form: int
    area: bytes
    extents: int
    """How many it has."""


class Inode(NamedTuple):
    """One inode. Times are nanoseconds since 1970."""

    number: int
    mode: int
    owner: int
    group: int
    size: int
    allocated_bytes: int
    links: int
    realtime: bool
    mtime_ns: int
    atime_ns: int
    ctime_ns: int
    created_ns: int
    data: Fork
    attributes: Fork | None

    @property
    def where(self) -> str:
        return f"XFS inode {self.number}"


class Table:
    """All inodes of one volume."""

    def __init__(self, volume: Image, superblock: Superblock) -> None:
        self.volume = volume
        self.superblock = superblock
        batch = lru_cache(BATCHES_MAX)(partial(volume.read, length=BATCH_BYTES))
        self.inode = lru_cache(INODES_MAX)(partial(_read_inode, superblock, batch))
        """The inode of a number.

        Raises:
            CorruptError: there is no such inode, or it is damaged or unused.
        """

    def block(self, number: int, count: int, where: str) -> bytes:
        """Blocks of metadata.

        Raises:
            CorruptError: they lie beyond the volume.
        """
        place = self.superblock.place(number, where)
        return read_exactly(self.volume, place, count * self.superblock.block_bytes, where)


def _read_inode(superblock: Superblock, batch: Callable[[int], bytes], number: int) -> Inode:
    block, index = number >> superblock.block_inodes_shift, number
    index &= (1 << superblock.block_inodes_shift) - 1
    at = superblock.place(block, f"XFS inode {number}") + index * superblock.inode_bytes
    skipped = at % BATCH_BYTES
    content = batch(at - skipped)[skipped : skipped + superblock.inode_bytes]
    return parse_inode(content, number, superblock)


def parse_inode(content: bytes, number: int, superblock: Superblock) -> Inode:
    """The inode in `content`.

    Raises:
        CorruptError: it is damaged, or belongs to no file.
    """
    where = f"XFS inode {number}"
    if len(content) < superblock.inode_bytes or content[:2] != MAGIC:
        raise CorruptError(f"{where}: expected its magic, got {content[:2]!r}")
    (_, mode, version, form, old_links, owner, group, links, wide_extents, atime, mtime, ctime,
     size, blocks, extents, attribute_extents, fork_at, attribute_form, flags, _,
     ) = _FIELDS.unpack_from(content)  # fmt: skip
    core = CORE_BYTES.get(version)
    if core is None or (version == 3) != (superblock.version == CHECKSUMMED):
        raise CorruptError(f"{where}: expected another version than {version}")
    second_flags, created, own = 0, ctime, number
    if version == 3:
        second_flags, created, own = _VERSION_3.unpack_from(content, 120)
    if second_flags & WIDE_COUNTS:
        extents, attribute_extents = wide_extents, extents
    if version == 3 and (not checked(content, CHECKSUM_AT) or own != number):
        raise CorruptError(f"{where}: wrong checksum, or another inode's")
    links = old_links if version == 1 else links
    if mode == 0 or links == 0:
        raise CorruptError(f"{where}: expected a file, got an unused inode")
    area = content[core:]
    split = fork_at * 8 or len(area)
    if split > len(area):
        raise CorruptError(f"{where}: its attributes begin beyond its {len(content)} bytes")
    big = bool(second_flags & BIG_TIME)
    return Inode(
        number=number,
        mode=mode,
        owner=owner,
        group=group,
        size=size,
        allocated_bytes=blocks * superblock.block_bytes,
        links=links,
        realtime=bool(flags & REALTIME),
        mtime_ns=_time_ns(mtime, big=big),
        atime_ns=_time_ns(atime, big=big),
        ctime_ns=_time_ns(ctime, big=big),
        created_ns=_time_ns(created, big=big),
        data=Fork(form, area[:split], extents),
        attributes=Fork(attribute_form, area[split:], attribute_extents) if fork_at else None,
    )


def _time_ns(stored: bytes, *, big: bool) -> int:
    if big:
        return int.from_bytes(stored, "big") + BIG_TIME_START_NS
    seconds, fraction = struct.unpack(">iI", stored)
    return seconds * SECOND_NS + fraction
