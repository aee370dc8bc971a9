"""Attributes of many files at once: their inodes read together and decoded side by side.

Defined here and only here: `survey`. Used by `files`. Stateless and thread-safe.

Only what is whole and ordinary is answered: files, folders, pipes and sockets whose inode
contradicts the format nowhere. All others are left to `inode`, which knows the rest of the format
and says what is wrong; nothing is decided here about damage.
"""

import stat
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.errors import CorruptError, DamagedError
from timefs.guest.ext.checksum import crc32c
from timefs.guest.ext.inode import SECOND_NS, SECTOR_BYTES, Flag
from timefs.guest.ext.superblock import INODE_BYTES_MIN, Incompatible, ReadOnly
from timefs.guest.ext.table import Table
from timefs.guest.ext.xattrs import MAGIC as XATTR_MAGIC
from timefs.guest.gather import gather
from timefs.guest.posix_volume import Survey
from timefs.tree import Attributes

_FIELDS: Final = {
    "mode": ("<u2", 0), "owner": ("<u2", 2), "size": ("<u4", 4), "accessed": ("<i4", 8),
    "changed": ("<i4", 12), "modified": ("<i4", 16), "group": ("<u2", 24), "links": ("<u2", 26),
    "sectors": ("<u4", 28), "flags": ("<u4", 32), "generation": ("<u4", 100),
    "size_high": ("<u4", 108), "sectors_high": ("<u2", 116), "owner_high": ("<u2", 120),
    "group_high": ("<u2", 122), "check_low": ("<u2", 124), "extra_bytes": ("<u2", 128),
    "xattr_block": ("<u4", 104), "xattr_block_high": ("<u2", 118), "xattr_magic": ("<u4", 160),
    "check_high": ("<u2", 130), "changed_extra": ("<u4", 132), "modified_extra": ("<u4", 136),
    "accessed_extra": ("<u4", 140), "created": ("<i4", 144), "created_extra": ("<u4", 148),
}  # fmt: skip
"""For each field of an inode its type and where it is."""

_FIELDS_BYTES: Final = 164
_CREATED_BYTES: Final = 24
"""Of an inode's extra part, up to its last time."""

EXTRA_BYTES: Final = 32
"""The whole of the extra part, as it is usual."""

_KINDS: Final = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFSOCK)
_SECONDS_MAX: Final = 9 * 10**9
"""From 1970, so that nanoseconds fit 64 bits."""

_SECTORS_MAX: Final = 1 << 44
_NUMBERS_MAX: Final = 1 << 32

Truths = NDArray[np.bool_]
Numbers = NDArray[np.int64]


class _Fields:
    """Fields of many inodes, side by side."""

    def __init__(self, inodes: NDArray[np.uint8]) -> None:
        width = max(inodes.shape[1], _FIELDS_BYTES)
        padded = np.zeros((len(inodes), width), np.uint8)
        padded[:, : inodes.shape[1]] = inodes
        kind = np.dtype(
            {
                "names": list(_FIELDS),
                "formats": [form for form, _ in _FIELDS.values()],
                "offsets": [offset for _, offset in _FIELDS.values()],
                "itemsize": width,
            }
        )
        self._values = padded.view(kind)[:, 0]

    def __getitem__(self, name: str) -> Numbers:
        return self._values[name].astype(np.int64)

    def wide(self, low: str, high: str, bits: int) -> Numbers:
        """A number in two parts."""
        return self[low] | self[high] << bits


def survey(table: Table, numbers: Sequence[int]) -> Survey:
    """What is to be told of many inodes at once."""
    places = _places(table, numbers)
    inodes, usual = gather(table.volume, places, table.superblock.inode_bytes)
    fields = _Fields(inodes)
    mode = fields["mode"]
    usual &= (fields["links"] > 0) & np.isin(mode & 0o170000, _KINDS)
    extra_bytes = fields["extra_bytes"]
    if inodes.shape[1] > INODE_BYTES_MIN:
        usual &= (extra_bytes >= _CREATED_BYTES) & (extra_bytes % 4 == 0)
        usual &= extra_bytes <= inodes.shape[1] - INODE_BYTES_MIN
    _verify(table, numbers, inodes, fields, usual)
    bare = usual & (fields.wide("xattr_block", "xattr_block_high", 32) == 0)
    if inodes.shape[1] > INODE_BYTES_MIN + EXTRA_BYTES:
        bare &= (extra_bytes == EXTRA_BYTES) & (fields["xattr_magic"] != XATTR_MAGIC)
    attributes = _answers(table, fields, usual)
    return Survey(attributes, frozenset(np.array(numbers, np.uint64)[bare].tolist()))


def _places(table: Table, numbers: Sequence[int]) -> Numbers:
    """Where each inode lies, below zero where that cannot be told."""
    superblock = table.superblock
    wanted = np.array([number if 0 < number < _NUMBERS_MAX else 0 for number in numbers], np.int64)
    groups, within = np.divmod(wanted - 1, superblock.group_inodes)
    known = (wanted > 0) & (wanted <= superblock.inodes)
    places = np.full(len(wanted), -1, np.int64)
    for group in np.unique(groups[known]).tolist():
        try:
            start = table.place(group)
        except (CorruptError, DamagedError):
            continue
        there = known & (groups == group)
        places[there] = start + within[there] * superblock.inode_bytes
    return places


def _verify(
    table: Table,
    numbers: Sequence[int],
    inodes: NDArray[np.uint8],
    fields: _Fields,
    usual: Truths,
) -> None:
    """`usual` falls where an inode's checksum is wrong."""
    seed = table.superblock.seed
    if seed is None:
        return
    high = inodes.shape[1] > INODE_BYTES_MIN
    expected = fields.wide("check_low", "check_high", 16) if high else fields["check_low"]
    bare = inodes.copy()
    bare[:, 124:126] = 0
    if high:
        bare[:, 130:132] = 0
    mask = 0xFFFFFFFF if high else 0xFFFF
    content, inode_bytes = bare.tobytes(), inodes.shape[1]
    generations, checks = fields["generation"].tolist(), expected.tolist()
    for row in np.flatnonzero(usual).tolist():
        own = crc32c(seed, struct.pack("<II", numbers[row], generations[row]))
        part = content[row * inode_bytes : (row + 1) * inode_bytes]
        usual[row] = crc32c(own, part) & mask == checks[row]


def _answers(table: Table, fields: _Fields, usual: Truths) -> list[Attributes | None]:
    superblock = table.superblock
    mode, flags = fields["mode"], fields["flags"]
    plain = mode & 0o170000 == stat.S_IFREG
    wide = plain | bool(superblock.incompatible & Incompatible.LARGE_FOLDERS)
    usual &= ~wide | (fields["size_high"] < 1 << 31)
    size = fields["size"] | np.where(wide, fields["size_high"], 0) << 32
    allocated = fields["sectors"] * SECTOR_BYTES
    if superblock.read_only & ReadOnly.HUGE_FILES:
        sectors = fields.wide("sectors", "sectors_high", 32)
        usual &= sectors < _SECTORS_MAX
        allocated = sectors * np.where(flags & Flag.HUGE, superblock.block_bytes, SECTOR_BYTES)
    inline = plain & (flags & Flag.INLINE != 0)
    allocated += np.where(inline, -(-size // SECTOR_BYTES) * SECTOR_BYTES, 0)
    times = {name: _times(fields, name, usual) for name in ("modified", "accessed", "changed")}
    created = times["changed"]
    if superblock.inode_bytes > INODE_BYTES_MIN:
        created = _times(fields, "created", usual)
    columns = (
        *(mode, size, allocated, fields["links"]),
        *(times["modified"], times["accessed"], times["changed"], created),
        *(fields.wide("owner", "owner_high", 16), fields.wide("group", "group_high", 16)),
    )
    shown = map(Attributes, *(column.tolist() for column in columns))
    return [each if one else None for one, each in zip(usual.tolist(), shown, strict=True)]


def _times(fields: _Fields, name: str, usual: Truths) -> Numbers:
    extra = fields[f"{name}_extra"]
    seconds = fields[name] + ((extra & 3) << 32)
    usual &= seconds < _SECONDS_MAX
    return np.where(usual, seconds * SECOND_NS + (extra >> 2), 0)
