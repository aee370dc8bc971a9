"""The superblock: where a volume's geometry is defined, and only here.

Used by `volume` (to open) and, as a value, by every other module of this package. Stateless.

Source: Linux kernel documentation, "ext4 Data Structures and Algorithms", Super Block.
"""

import struct
from enum import IntFlag
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Image, read_exactly
from timefs.guest.ext.checksum import ALL_ONES, crc32c

PLACE: Final = 1024
SUPERBLOCK_BYTES: Final = 1024
MAGIC: Final = 0xEF53
BLOCK_BYTES_MAX: Final = 64 << 10
INODE_BYTES_MIN: Final = 128
DESCRIPTOR_BYTES_MIN: Final = 32
DESCRIPTOR_64BIT_BYTES_MIN: Final = 64
STATE_CLEAN: Final = 1
STATE_ERRORS: Final = 2
CHECKSUM_AT: Final = 0x3FC


class Compatible(IntFlag):
    """Features that do not hinder a reader that ignores them."""

    JOURNAL = 0x4
    SPARSE_SUPER2 = 0x200


class Incompatible(IntFlag):
    """Features that a reader must know."""

    COMPRESSION = 0x1
    FILE_TYPE = 0x2
    RECOVER = 0x4
    JOURNAL_DEVICE = 0x8
    META_GROUPS = 0x10
    EXTENTS = 0x40
    WIDE = 0x80
    MULTI_MOUNT = 0x100
    FLEXIBLE_GROUPS = 0x200
    VALUE_INODES = 0x400
    CHECKSUM_SEED = 0x2000
    LARGE_FOLDERS = 0x4000
    INLINE_DATA = 0x8000
    ENCRYPTION = 0x10000
    CASE_FOLDING = 0x20000


class ReadOnly(IntFlag):
    """Features that a writer must know; some tell a reader how to read counts."""

    SPARSE_SUPER = 0x1
    HUGE_FILES = 0x8
    CLUSTERS = 0x200
    CHECKSUMS = 0x400


class HashFlag(IntFlag):
    """How the volume's first writer took the bytes of names."""

    SIGNED = 0x1
    UNSIGNED = 0x2


KNOWN: Final = sum(Incompatible)


class Superblock(NamedTuple):
    """What the superblock says; blocks are counted from the start of the volume."""

    inodes: int
    blocks: int
    first_block: int
    """The block that the first group begins with."""
    block_bytes: int
    group_blocks: int
    group_inodes: int
    state: int
    inode_bytes: int
    compatible: int
    incompatible: int
    read_only: int
    label: bytes
    journal_inode: int
    descriptor_bytes: int
    first_meta_group: int
    backup_groups: tuple[int, int]
    seed: int | None
    """Where the metadata's checksums begin, None if there are none."""
    cluster_bytes: int
    hash_seed: tuple[int, int, int, int]
    signed_hash: bool | None
    """Whether the hashes of names take bytes for numbers with a sign; None if it does not say."""

    @property
    def groups(self) -> int:
        return -(-(self.blocks - self.first_block) // self.group_blocks)


def read_superblock(volume: Image) -> Superblock:
    """What the superblock of a volume says, checked.

    Raises:
        UnsupportedError: not ext2/3/4, or with a feature that is not decoded.
        CorruptError: it contradicts itself, or the volume ends before it says.
    """
    content = read_exactly(volume, PLACE, SUPERBLOCK_BYTES, "ext superblock")
    found = _parse(content)
    if found.seed is not None:
        expected = int.from_bytes(content[CHECKSUM_AT:], "little")
        got = crc32c(ALL_ONES, content[:CHECKSUM_AT])
        if got != expected:
            raise CorruptError(f"ext superblock: expected checksum {expected:#x}, got {got:#x}")
    _check(found, volume.size)
    return found


def _u16(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 2], "little")


def _u32(content: bytes, at: int) -> int:
    return int.from_bytes(content[at : at + 4], "little")


def _parse(content: bytes) -> Superblock:
    if _u16(content, 0x38) != MAGIC:
        raise UnsupportedError(f"ext superblock: expected its magic, got {content[0x38:0x3A]!r}")
    compatible, incompatible, read_only = (_u32(content, at) for at in (0x5C, 0x60, 0x64))
    _refuse_unknown(incompatible)
    old = _u32(content, 0x4C) == 0
    uuid = content[0x68:0x78]
    seed = None
    if read_only & ReadOnly.CHECKSUMS:
        seeded = incompatible & Incompatible.CHECKSUM_SEED
        seed = _u32(content, 0x270) if seeded else crc32c(ALL_ONES, uuid)
    wide = incompatible & Incompatible.WIDE
    block_bytes = 1024 << min(_u32(content, 0x18), 16)
    clusters = read_only & ReadOnly.CLUSTERS
    return Superblock(
        inodes=_u32(content, 0),
        blocks=_u32(content, 4) | (_u32(content, 0x150) << 32 if wide else 0),
        first_block=_u32(content, 0x14),
        block_bytes=block_bytes,
        group_blocks=_u32(content, 0x20),
        group_inodes=_u32(content, 0x28),
        state=_u16(content, 0x3A),
        inode_bytes=INODE_BYTES_MIN if old else _u16(content, 0x58),
        compatible=compatible,
        incompatible=incompatible,
        read_only=read_only,
        label=content[0x78:0x88].partition(b"\0")[0],
        journal_inode=_u32(content, 0xE0),
        descriptor_bytes=_u16(content, 0xFE) if wide else DESCRIPTOR_BYTES_MIN,
        first_meta_group=_u32(content, 0x104),
        backup_groups=(_u32(content, 0x24C), _u32(content, 0x250)),
        seed=seed,
        cluster_bytes=1024 << min(_u32(content, 0x1C), 32) if clusters else block_bytes,
        hash_seed=struct.unpack_from("<4I", content, 0xEC),
        signed_hash=_signed_hash(_u32(content, 0x160)),
    )


def _signed_hash(flags: int) -> bool | None:
    if flags & HashFlag.UNSIGNED:
        return False
    return True if flags & HashFlag.SIGNED else None


def _refuse_unknown(incompatible: int) -> None:
    if incompatible & Incompatible.JOURNAL_DEVICE:
        raise UnsupportedError("ext superblock: the volume is another volume's journal")
    if incompatible & ~KNOWN:
        raise UnsupportedError(f"ext superblock: unknown features {incompatible & ~KNOWN:#x}")


def _check(found: Superblock, volume_bytes: int) -> None:
    smallest = (
        DESCRIPTOR_64BIT_BYTES_MIN
        if found.incompatible & Incompatible.WIDE
        else DESCRIPTOR_BYTES_MIN
    )
    for name, value, least, most in (
        ("bytes a block", found.block_bytes, 1024, BLOCK_BYTES_MAX),
        ("bytes an inode", found.inode_bytes, INODE_BYTES_MIN, found.block_bytes),
        ("bytes a group descriptor", found.descriptor_bytes, smallest, found.block_bytes),
        ("first block", found.first_block, 0, 1),
        ("blocks", found.blocks, 2, volume_bytes // found.block_bytes),
        ("blocks a group", found.group_blocks, 8, 1 << 28),
        ("inodes a group", found.group_inodes, 1, found.block_bytes * 8),
    ):
        if not least <= value <= most:
            raise CorruptError(
                f"ext superblock: {name}: expected {least} to {most}, got {value}"
                + ("; the volume is cut short" if name == "blocks" and value > most else "")
            )
    for name, value in (("inode", found.inode_bytes), ("descriptor", found.descriptor_bytes)):
        if value & (value - 1):
            raise CorruptError(f"ext superblock: expected 2^n bytes a {name}, got {value}")
