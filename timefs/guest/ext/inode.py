"""Inodes: what the volume keeps of a file besides its name and its bytes.

Defined here and only here: `Inode`, `parse_inode` and the inode's flags. Used by every module above
it in this package. Values; stateless.

Source: Linux kernel documentation, "ext4 Data Structures and Algorithms", Index Nodes.
"""

import stat
import struct
from enum import IntFlag
from typing import Final, NamedTuple

from store.errors import CorruptError
from timefs.guest.ext.checksum import crc32c
from timefs.guest.ext.superblock import INODE_BYTES_MIN, Incompatible, ReadOnly, Superblock

SECOND_NS: Final = 1_000_000_000
BLOCK_AREA_BYTES: Final = 60
SECTOR_BYTES: Final = 512

_FIELDS: Final = struct.Struct("<HHIiiiIHHII4x60sIII4xHHHHH2x")
_EXTRA: Final = struct.Struct("<HHIIIiI")
_EXTRA_CREATED_BYTES: Final = 24
"""Bytes of the extra part up to the time of creation and its fraction."""
_EXTRA_CHECKSUM_BYTES: Final = 4
_CHECKSUM_LOW: Final = slice(0x7C, 0x7E)
_CHECKSUM_HIGH: Final = slice(0x82, 0x84)


class Flag(IntFlag):
    """Inode flags that change how it is read."""

    COMPRESSED = 0x4
    ENCRYPTED = 0x800
    INDEXED = 0x1000
    HUGE = 0x40000
    EXTENTS = 0x80000
    VALUE = 0x200000
    INLINE = 0x10000000
    FOLDED = 0x40000000


class Inode(NamedTuple):
    """One inode. Times are nanoseconds since 1970."""

    number: int
    generation: int
    mode: int
    owner: int
    group: int
    size: int
    allocated_bytes: int
    links: int
    flags: int
    mtime_ns: int
    atime_ns: int
    ctime_ns: int
    created_ns: int
    area: bytes
    """The 60 bytes that hold block pointers, the extent tree's root, or content."""
    xattr_block: int
    extra: bytes
    """What follows the inode's fields: attributes, if it begins with their magic."""
    seed: int | None
    """Where the checksums of what belongs to the inode begin."""

    @property
    def where(self) -> str:
        return f"ext inode {self.number}"


def parse_inode(content: bytes, number: int, superblock: Superblock) -> Inode:
    """The inode in `content`.

    Raises:
        CorruptError: its checksum is wrong, or it belongs to no file.
    """
    (mode, owner, size, atime, ctime, mtime, deleted, group, links, sectors, flags, area,
     generation, xattr_block, size_high, sectors_high, xattr_high, owner_high, group_high,
     low) = _FIELDS.unpack_from(content)  # fmt: skip
    extra_bytes, high, *extra_times = _extra(content)
    where = f"ext inode {number}"
    if INODE_BYTES_MIN + extra_bytes > len(content) or extra_bytes % 4:
        raise CorruptError(f"{where}: {extra_bytes} bytes of further fields in {len(content)}")
    seed = _seed(superblock, number, generation)
    if seed is not None:
        _verify(content, seed, low, high if extra_bytes >= _EXTRA_CHECKSUM_BYTES else None, where)
    if links == 0 or mode == 0:
        raise CorruptError(f"{where}: expected a file, got an unused inode (deleted {deleted})")
    if stat.S_ISREG(mode) or superblock.incompatible & Incompatible.LARGE_FOLDERS:
        size |= size_high << 32
    unit_bytes = SECTOR_BYTES
    if superblock.read_only & ReadOnly.HUGE_FILES:
        sectors |= sectors_high << 32
        unit_bytes = superblock.block_bytes if flags & Flag.HUGE else SECTOR_BYTES
    ctime_extra, mtime_extra, atime_extra, created, created_extra = extra_times
    return Inode(
        number=number,
        generation=generation,
        mode=mode,
        owner=owner | owner_high << 16,
        group=group | group_high << 16,
        size=size,
        allocated_bytes=sectors * unit_bytes,
        links=links,
        flags=flags,
        mtime_ns=_time_ns(mtime, mtime_extra),
        atime_ns=_time_ns(atime, atime_extra),
        ctime_ns=_time_ns(ctime, ctime_extra),
        created_ns=_time_ns(created, created_extra),
        area=area,
        xattr_block=xattr_block | xattr_high << 32,
        extra=content[INODE_BYTES_MIN + extra_bytes :] if extra_bytes else b"",
        seed=seed,
    )


def _extra(content: bytes) -> tuple[int, ...]:
    """Extra bytes, checksum's rest, fractions of change, modification, access; creation.

    Fields beyond what the inode says it has are zeros; one that says nothing has them all. Without
    creation it is the change time.
    """
    change = struct.unpack_from("<i", content, 12)[0]
    if len(content) == INODE_BYTES_MIN:
        return 0, 0, 0, 0, 0, change, 0
    extra_bytes = int.from_bytes(content[INODE_BYTES_MIN : INODE_BYTES_MIN + 2], "little")
    present_bytes = extra_bytes or _EXTRA.size
    present = content[INODE_BYTES_MIN : INODE_BYTES_MIN + min(present_bytes, _EXTRA.size)]
    fields = _EXTRA.unpack(present.ljust(_EXTRA.size, b"\0"))
    if present_bytes >= _EXTRA_CREATED_BYTES:
        return fields
    return *fields[:5], change, fields[2]


def _time_ns(seconds: int, extra: int) -> int:
    return (seconds + ((extra & 3) << 32)) * SECOND_NS + (extra >> 2)


def _seed(superblock: Superblock, number: int, generation: int) -> int | None:
    if superblock.seed is None:
        return None
    return crc32c(superblock.seed, struct.pack("<II", number, generation))


def _verify(content: bytes, seed: int, low: int, high: int | None, where: str) -> None:
    cleared = bytearray(content)
    cleared[_CHECKSUM_LOW] = bytes(2)
    if high is not None:
        cleared[_CHECKSUM_HIGH] = bytes(2)
    got = crc32c(seed, bytes(cleared))
    expected = low if high is None else low | high << 16
    if got & (0xFFFF if high is None else 0xFFFFFFFF) != expected:
        raise CorruptError(f"{where}: expected checksum {expected:#x}, got {got:#x}")
