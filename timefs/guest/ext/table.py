"""Group descriptors and the inode tables: inodes by number.

Defined here and only here: `Table`. Used by every module above it in this package. Thread-safe:
what it holds is immutable or a bounded cache.

Source: Linux kernel documentation, "ext4 Data Structures and Algorithms", Block Group Descriptors,
Meta Block Groups.
"""

import struct
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final

from store.errors import CorruptError
from store.image import Image, read_exactly
from timefs.guest.ext.checksum import crc32c
from timefs.guest.ext.inode import Inode, parse_inode
from timefs.guest.ext.superblock import (
    DESCRIPTOR_64BIT_BYTES_MIN,
    Compatible,
    Incompatible,
    ReadOnly,
    Superblock,
)

BATCH_BYTES: Final = 4096
"""Inodes are read in pieces of this size: neighbours are usually wanted together."""

BATCHES_MAX: Final = 256
INODES_MAX: Final = 1024
GROUPS_MAX: Final = 1024
"""Batches, parsed inodes and groups that are kept."""

_CHECKSUM: Final = slice(0x1E, 0x20)


class Table:
    """All inodes of one volume.

    The caches hold functions of values, not methods: a volume that nobody uses is gone at once.
    """

    def __init__(self, volume: Image, superblock: Superblock) -> None:
        self.volume = volume
        self.superblock = superblock
        self.place = lru_cache(GROUPS_MAX)(partial(_read_place, volume, superblock))
        """Where the inodes of a group begin.

        Raises:
            CorruptError: there is no such group, or what describes it is damaged.
        """
        batch = lru_cache(BATCHES_MAX)(partial(volume.read, length=BATCH_BYTES))
        self.inode = lru_cache(INODES_MAX)(partial(_read_inode, superblock, self.place, batch))
        """The inode of a number.

        Raises:
            CorruptError: there is no such inode, or it is damaged or unused.
        """

    def block(self, number: int, what: str) -> bytes:
        """A block of metadata.

        Raises:
            CorruptError: it lies beyond the volume.
        """
        return _read_block(self.volume, self.superblock, number, what)


def _read_block(volume: Image, superblock: Superblock, number: int, what: str) -> bytes:
    if not 0 < number < superblock.blocks:
        raise CorruptError(f"{what}: expected a block below {superblock.blocks}, got {number}")
    return read_exactly(volume, number * superblock.block_bytes, superblock.block_bytes, what)


def _read_inode(
    superblock: Superblock,
    place: Callable[[int], int],
    batch: Callable[[int], bytes],
    number: int,
) -> Inode:
    if not 0 < number <= superblock.inodes:
        raise CorruptError(
            f"ext inode {number}: expected a number up to {superblock.inodes}, it is beyond"
        )
    group, index = divmod(number - 1, superblock.group_inodes)
    at = place(group) + index * superblock.inode_bytes
    end = at + superblock.inode_bytes
    content = b""
    while len(content) < superblock.inode_bytes:
        first = at + len(content)
        skipped = first % BATCH_BYTES
        part = batch(first - skipped)[skipped : skipped + end - first]
        if not part:
            raise CorruptError(f"ext inode {number}: it lies beyond the volume")
        content += part
    return parse_inode(content, number, superblock)


def _read_place(volume: Image, superblock: Superblock, group: int) -> int:
    """Where a group's inode table begins."""
    where = f"ext group {group}"
    if group >= superblock.groups:
        raise CorruptError(f"{where}: expected less than {superblock.groups} groups")
    per_block = superblock.block_bytes // superblock.descriptor_bytes
    number = _descriptor_block(superblock, group // per_block)
    at = group % per_block * superblock.descriptor_bytes
    descriptor = _read_block(volume, superblock, number, where)[
        at : at + superblock.descriptor_bytes
    ]
    if superblock.seed is not None:
        cleared = descriptor[: _CHECKSUM.start] + bytes(2) + descriptor[_CHECKSUM.stop :]
        got = crc32c(superblock.seed, struct.pack("<I", group) + cleared) & 0xFFFF
        expected = int.from_bytes(descriptor[_CHECKSUM], "little")
        if got != expected:
            raise CorruptError(f"{where}: expected checksum {expected:#x}, got {got:#x}")
    table = int.from_bytes(descriptor[8:12], "little")
    if superblock.descriptor_bytes >= DESCRIPTOR_64BIT_BYTES_MIN:
        table |= int.from_bytes(descriptor[0x28:0x2C], "little") << 32
    table_bytes = superblock.group_inodes * superblock.inode_bytes
    place = table * superblock.block_bytes
    if table == 0 or place + table_bytes > superblock.blocks * superblock.block_bytes:
        raise CorruptError(f"{where}: its inode table at block {table} leaves the volume")
    return place


def _descriptor_block(superblock: Superblock, number: int) -> int:
    """Where the block is that holds the descriptors' `number`th part."""
    meta = superblock.incompatible & Incompatible.META_GROUPS
    if not meta or number < superblock.first_meta_group:
        own = 1 if superblock.block_bytes == 1024 else 0
        return own + 1 + number
    group = number * (superblock.block_bytes // superblock.descriptor_bytes)
    after = 1 if _has_superblock(superblock, group) else 0
    if superblock.block_bytes == 1024 and number == 0 and superblock.first_block == 0:
        after += 1
    return superblock.first_block + group * superblock.group_blocks + after


def _has_superblock(superblock: Superblock, group: int) -> bool:
    """Whether a group begins with a copy of the superblock."""
    if group == 0:
        return True
    if superblock.compatible & Compatible.SPARSE_SUPER2:
        return group in superblock.backup_groups
    if group == 1 or not superblock.read_only & ReadOnly.SPARSE_SUPER:
        return True
    for base in (3, 5, 7):
        power = base
        while power < group:
            power *= base
        if power == group:
            return True
    return False
