"""Attributes of many files at once: their inodes read together and decoded side by side.

Defined here and only here: `survey`. Used by `files`. Stateless and thread-safe.

Only what is whole and ordinary is answered: files, folders, pipes and sockets whose inode
contradicts the format nowhere. All others are left to `inode`, which knows the rest of the format
and says what is wrong; nothing is decided here about damage.
"""

import stat
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from timefs.guest.gather import gather
from timefs.guest.posix_volume import Survey
from timefs.guest.xfs.inode import (
    BIG_TIME,
    BIG_TIME_START_NS,
    CORE_BYTES,
    SECOND_NS,
    WIDE_COUNTS,
    Form,
    Table,
)
from timefs.guest.xfs.superblock import CHECKSUMMED, Superblock, checksum
from timefs.tree import Attributes

_FIELDS: Final = {
    "magic": (">u2", 0), "mode": (">u2", 2), "version": ("u1", 4), "owner": (">u4", 8),
    "group": (">u4", 12), "links": (">u4", 16), "accessed": (">u8", 32), "modified": (">u8", 40),
    "changed": (">u8", 48), "size": (">u8", 56), "blocks": (">u8", 64),
    "attributes_wide": (">u4", 76),
    "attributes": (">u2", 80), "fork_at": ("u1", 82), "attribute_form": ("u1", 83),
    "more_flags": (">u8", 120), "created": (">u8", 144), "own": (">u8", 152),
}  # fmt: skip
"""For each field of an inode its type and where it is; the last three in version 3 only."""

_MAGIC: Final = int.from_bytes(b"IN", "big")
_CHECKSUM: Final = slice(100, 104)
_KINDS: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFSOCK)
_SIZE_MAX: Final = 1 << 62
_BLOCKS_MAX: Final = 1 << 46
_BIG_TIME_MAX: Final = 1 << 63

Truths = NDArray[np.bool_]
Numbers = NDArray[np.int64]


def survey(table: Table, numbers: Sequence[int]) -> Survey:
    """What is to be told of many inodes at once."""
    superblock = table.superblock
    wanted = np.array(numbers, np.uint64)
    inodes, usual = gather(table.volume, _places(superblock, wanted), superblock.inode_bytes)
    kind = np.dtype(
        {
            "names": list(_FIELDS),
            "formats": [form for form, _ in _FIELDS.values()],
            "offsets": [offset for _, offset in _FIELDS.values()],
            "itemsize": superblock.inode_bytes,
        }
    )
    fields = inodes.view(kind)[:, 0]
    mode = fields["mode"].astype(np.int64)
    version = 3 if superblock.version == CHECKSUMMED else 2
    usual &= (fields["magic"] == _MAGIC) & (fields["version"] == version)
    usual &= (fields["links"] > 0) & np.isin(mode & 0o170000, _KINDS)
    usual &= fields["fork_at"].astype(np.int64) * 8 <= superblock.inode_bytes - CORE_BYTES[version]
    usual &= (fields["size"] < _SIZE_MAX) & (fields["blocks"] < _BLOCKS_MAX)
    if version == 3:
        usual &= fields["own"] == wanted
        _verify(inodes, usual)
    bare = wanted[usual & _without_attributes(fields, version)]
    return Survey(_answers(superblock, fields, mode, usual), frozenset(bare.tolist()))


def _without_attributes(fields: NDArray[np.void], version: int) -> Truths:
    """Whether a file has no extended attributes: no room for them, or room that is empty."""
    count = fields["attributes"].astype(np.int64)
    if version == 3:
        wide = fields["more_flags"] & WIDE_COUNTS != 0
        count = np.where(wide, fields["attributes_wide"], count)
    empty = (fields["attribute_form"] == Form.EXTENTS) & (count == 0)
    return empty | (fields["fork_at"] == 0)


def _places(superblock: Superblock, numbers: NDArray[np.uint64]) -> Numbers:
    """Where each inode lies, below zero where that is nowhere in the volume."""
    shift, group_shift = superblock.block_inodes_shift, superblock.group_shift
    blocks = numbers >> np.uint64(shift)
    groups, within = blocks >> np.uint64(group_shift), blocks & np.uint64((1 << group_shift) - 1)
    there = (groups < superblock.groups) & (within < superblock.group_blocks)
    block = np.where(there, groups, 0) * superblock.group_blocks + np.where(there, within, 0)
    there &= block < superblock.blocks
    place = block.astype(np.int64) * superblock.block_bytes
    place += (numbers & np.uint64((1 << shift) - 1)).astype(np.int64) * superblock.inode_bytes
    return np.where(there, place, -1)


def _verify(inodes: NDArray[np.uint8], usual: Truths) -> None:
    """`usual` falls where an inode's checksum is wrong."""
    expected = inodes[:, _CHECKSUM].copy().view("<u4")[:, 0].tolist()
    bare = inodes.copy()
    bare[:, _CHECKSUM] = 0
    content, inode_bytes = bare.tobytes(), inodes.shape[1]
    for row in np.flatnonzero(usual).tolist():
        part = content[row * inode_bytes : (row + 1) * inode_bytes]
        usual[row] = checksum(part) == expected[row]


def _answers(
    superblock: Superblock, fields: NDArray[np.void], mode: Numbers, usual: Truths
) -> list[Attributes | None]:
    big = np.zeros(len(mode), np.bool_)
    created = "changed"
    if superblock.version == CHECKSUMMED:
        big = fields["more_flags"] & BIG_TIME != 0
        created = "created"
    times = (
        _times(fields[name], big, usual) for name in ("modified", "accessed", "changed", created)
    )
    size, blocks = (fields[name].astype(np.int64) for name in ("size", "blocks"))
    columns = (mode, size, blocks * superblock.block_bytes, fields["links"], *times)
    shown = map(
        Attributes,
        *(column.tolist() for column in columns),
        *(fields[name].tolist() for name in ("owner", "group")),
    )
    return [each if one else None for one, each in zip(usual.tolist(), shown, strict=True)]


def _times(stored: NDArray[np.uint64], big: Truths, usual: Truths) -> Numbers:
    """Nanoseconds since 1970, of which a big time counts from an earlier start."""
    usual &= ~big | (stored < _BIG_TIME_MAX)
    count = stored.astype(np.int64)
    seconds, fraction = count >> 32, count & 0xFFFFFFFF
    return np.where(big, count + BIG_TIME_START_NS, seconds * SECOND_NS + fraction)
