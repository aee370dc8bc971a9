"""The log: whether it holds changes that the volume is without.

Defined here and only here: `read_log_state`. Used by `volume`. Stateless. The log is looked at, and
never replayed.

Source: "XFS Algorithms & Data Structures", 3rd edition, Journaling Log; for how the end of a ring
is found that was not written to its end, the behaviour of a real mount.
"""

import struct
from bisect import bisect_left
from typing import Final, NamedTuple

import numpy as np

from store.errors import CorruptError
from store.image import Image, read_exactly
from timefs.guest.xfs.superblock import Superblock

CLEAN: Final = "clean"
NOT_UNMOUNTED: Final = "not unmounted: its log holds changes that are not shown here"
ELSEWHERE: Final = "its log is on another device: changes in it are not shown here"
UNREADABLE: Final = "its log cannot be read: changes in it are not shown here"

SECTOR_BYTES: Final = 512
MAGIC: Final = 0xFEEDBABE
UNORDERED: Final = (8 * 256 << 10) // SECTOR_BYTES
"""Sectors before the end of which some may not be written yet: the writer's largest buffers."""

RECORD: Final = (256 << 10) // SECTOR_BYTES + 16
"""Sectors of the largest record with its headers."""

_HEADER: Final = struct.Struct(">IIII24xI276xI")
"""Of a record: magic, cycle, version, bytes; operations; size of the writer's buffers."""
_HEADER_COVERS_BYTES: Final = 32 << 10
_VERSION_2: Final = 2
_UNMOUNT: Final = 0x20
_OPERATION_FLAGS_AT: Final = 9


def read_log_state(volume: Image, superblock: Superblock) -> str:
    """Whether the volume was unmounted, in words."""
    if superblock.log == 0:
        return ELSEWHERE
    try:
        start = superblock.place(superblock.log, "XFS log")
        return CLEAN if _is_clean(_Ring(volume, start, superblock.log_bytes)) else NOT_UNMOUNTED
    except CorruptError:
        return UNREADABLE


def _is_clean(ring: "_Ring") -> bool:
    """Whether the newest record says that the volume was unmounted.

    Raises:
        CorruptError: there never was a record, though mkfs.xfs writes one, or not all can be read.
    """
    if ring.cycle(0) == 0:
        raise CorruptError("XFS log: its first sector was never written")
    end = _end(ring)
    record = _last_record(ring, end)
    if record is None or record.end != end or record.operations != 1:
        return False
    operation = ring.read(record.content % ring.sectors, 1)
    return bool(operation[_OPERATION_FLAGS_AT] & _UNMOUNT)


class _Ring:
    """The log's sectors; each tells in which round it was written."""

    def __init__(self, volume: Image, start: int, size: int) -> None:
        self._volume = volume
        self._start = start
        self.sectors = size // SECTOR_BYTES
        if self.sectors == 0:
            raise CorruptError("XFS log: of no bytes")

    def read(self, first: int, count: int) -> bytes:
        return read_exactly(
            self._volume, self._start + first * SECTOR_BYTES, count * SECTOR_BYTES, "XFS log"
        )

    def cycle(self, sector: int) -> int:
        """The round that a sector is of, 0 if it was never written."""
        return self.cycles(sector, 1)[0]

    def cycles(self, first: int, count: int) -> list[int]:
        words = np.frombuffer(self.read(first, count), ">u4").reshape(count, -1)
        return np.where(words[:, 0] == MAGIC, words[:, 1], words[:, 0]).tolist()

    def first_of(self, cycle: int, first: int, end: int) -> int | None:
        """The first sector of a range that is of a round."""
        found = self.cycles(first, end - first) if end > first else []
        return first + found.index(cycle) if cycle in found else None


def _end(ring: _Ring) -> int:
    """The sector behind the newest that was written with all before it."""
    sectors = ring.sectors
    newest, oldest = ring.cycle(0), ring.cycle(sectors - 1)
    if newest == oldest:
        end, unwritten = sectors, oldest - 1
    else:
        end = bisect_left(range(sectors), 1, key=lambda at: int(ring.cycle(at) == oldest))
        unwritten = oldest
    if end < UNORDERED:
        start = max(end, sectors - (UNORDERED - end))
        hole = ring.first_of(unwritten - 1, start, sectors) if unwritten else None
        if hole is not None:
            return hole
    hole = ring.first_of(unwritten, max(0, end - UNORDERED), end)
    return end if hole is None else hole


class _Record(NamedTuple):
    """Where a record's content is and where it ends, and how many operations it holds."""

    content: int
    end: int
    operations: int


def _last_record(ring: _Ring, end: int) -> _Record | None:
    """The last record that begins before a sector."""
    for first, stop in ((max(0, end - RECORD), end), (ring.sectors - RECORD, ring.sectors)):
        sectors = np.frombuffer(ring.read(max(0, first), stop - max(0, first)), ">u4")
        headers = np.flatnonzero(sectors.reshape(-1, SECTOR_BYTES // 4)[:, 0] == MAGIC)
        if len(headers):
            return _parse(ring, max(0, first) + int(headers[-1]))
    return None


def _parse(ring: _Ring, at: int) -> _Record:
    _, _, version, size, operations, buffer_bytes = _HEADER.unpack_from(ring.read(at, 1))
    headers = 1
    if version & _VERSION_2 and buffer_bytes > _HEADER_COVERS_BYTES:
        headers = -(-buffer_bytes // _HEADER_COVERS_BYTES)
    content = at + headers
    end = content + -(-size // SECTOR_BYTES)
    return _Record(content, end - ring.sectors if end > ring.sectors else end, operations)
