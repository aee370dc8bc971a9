"""The allocation table, and content as an image of the clusters that it chains together.

Defined here and only here: `Table`, `Chain`, `Piece`, `Written` and `chain_bytes`. Used by `node`
and `volume`. Thread-safe: a chain is followed only as far as it was asked for, and remembered.

Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03, FAT Data Structure; "exFAT file
system specification", 4.1.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache, partial
from threading import Lock
from typing import Final, NamedTuple

import numpy as np

from store.budget import spend
from store.errors import CorruptError
from store.image import Extent, ExtentKind, Image, MappedImage, read_exactly
from timefs.guest.fat.boot import FIRST_CLUSTER, Geometry

PIECE_BYTES: Final = 12 << 10
"""The table is read in pieces of this size: whole entries of any width."""

PIECES_MAX: Final = 64
STEP_COST_BYTES: Final = 64
"""What it costs to go from one run of a chain to the next."""

_ENDS: Final = {12: 0xFF8, 16: 0xFFF8, 32: 0x0FFFFFF8}
_MASK_32: Final = 0x0FFFFFFF
_CLEAN: Final = {16: 0x8000, 32: 0x08000000}
"""Bits of the second entry that a clean volume has."""


class Table:
    """Which cluster follows which."""

    def __init__(self, volume: Image, geometry: Geometry) -> None:
        self.volume = volume
        self.geometry = geometry
        self._piece = lru_cache(PIECES_MAX)(partial(_read_piece, volume, geometry))
        self._end = _ENDS[geometry.width]
        self._per_piece = PIECE_BYTES * 8 // geometry.width

    def run_end(self, cluster: int) -> int:
        """The last of the clusters that follow one another in order, as far as one piece knows."""
        number, index = divmod(cluster, self._per_piece)
        piece = self._piece(number)
        breaks = piece.breaks
        position = bisect_left(breaks, index)
        last = breaks[position] if position < len(breaks) else len(piece.entries) - 1
        return min(number * self._per_piece + last, self.geometry.clusters + 1)

    def following(self, cluster: int, where: str) -> int | None:
        """The cluster after another, None if that was the last.

        Raises:
            CorruptError: neither a cluster nor an end comes next.
        """
        entry = self._entry(cluster)
        if entry >= self._end:
            return None
        return self.checked(entry, where)

    def checked(self, cluster: int, where: str) -> int:
        """A cluster's number, which must be one of the volume's."""
        if not FIRST_CLUSTER <= cluster < self.geometry.clusters + FIRST_CLUSTER:
            raise CorruptError(
                f"{where}: expected a cluster up to {self.geometry.clusters + 1}, got {cluster}"
            )
        return cluster

    def _entry(self, cluster: int) -> int:
        number, index = divmod(cluster, self._per_piece)
        return self._piece(number).entries[index]

    def clean(self) -> bool:
        """Whether the table says that the volume was put away; one of 12 bits cannot."""
        bit = _CLEAN.get(self.geometry.width)
        return bit is None or bool(self._entry(1) & bit)


class _TablePiece(NamedTuple):
    """Some entries, and the places in them from which the next cluster is not the one behind."""

    entries: "array[int]"
    breaks: list[int]


def _read_piece(volume: Image, geometry: Geometry, number: int) -> _TablePiece:
    offset = number * PIECE_BYTES
    length = min(PIECE_BYTES, geometry.table_bytes - offset)
    content = read_exactly(volume, geometry.table + offset, length, "FAT")
    entries = _entries(content, geometry.width)
    first = offset * 8 // geometry.width
    behind = np.arange(first + 1, first + 1 + len(entries))
    breaks = np.flatnonzero(np.frombuffer(entries, entries.typecode) != behind).tolist()
    return _TablePiece(entries, breaks)


def _entries(content: bytes, width: int) -> "array[int]":
    length = len(content)
    if width == 32:
        whole = array("I", content[: length & ~3])
        return array("I", (entry & _MASK_32 for entry in whole))
    if width == 16:
        return array("H", content[: length & ~1])
    entries = array("H")
    for at in range(0, length - 2, 3):
        three = int.from_bytes(content[at : at + 3], "little")
        entries.extend((three & 0xFFF, three >> 12))
    if length % 3 == 2:
        entries.append(int.from_bytes(content[-2:], "little") & 0xFFF)
    return entries


class Chain(MappedImage):
    """The content that begins at a cluster and goes on as the table says."""

    def __init__(self, table: Table, cluster: int, size: int, where: str) -> None:
        geometry = table.geometry
        if size > geometry.clusters * geometry.cluster_bytes:
            raise CorruptError(f"{where}: {size} bytes are more than the volume has")
        super().__init__(size)
        self._table = table
        self._cluster_bytes = geometry.cluster_bytes
        self._where = where
        self._lock = Lock()
        self._last = table.checked(cluster, where) if size else 0
        self._starts = array("Q", [0])
        self._clusters = array("I", [self._last])
        self._end = 1
        """Runs: the clusters in the file where they begin, where they lie, and the end of all."""

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        cluster_bytes = self._cluster_bytes
        needed = -(-(offset + length) // cluster_bytes)
        with self._lock:
            self._follow(needed)
            number = bisect_right(self._starts, offset // cluster_bytes) - 1
            stop = bisect_left(self._starts, needed)
            starts, clusters = self._starts[number:stop], self._clusters[number:stop]
        starts.append(needed)
        for index, cluster in enumerate(clusters):
            yield Extent(
                starts[index] * cluster_bytes,
                (starts[index + 1] - starts[index]) * cluster_bytes,
                ExtentKind.DATA,
                self._table.volume,
                self._table.geometry.place(cluster),
            )

    def _follow(self, needed: int) -> None:
        """Know at least the first `needed` clusters."""
        while self._end < needed:
            last = self._table.run_end(self._last)
            self._end += last - self._last
            self._last = last
            if self._end >= needed:
                return
            spend(STEP_COST_BYTES)
            following = self._table.following(last, self._where)
            if following is None:
                raise CorruptError(
                    f"{self._where}: expected {needed} clusters, its chain ends after {self._end}"
                )
            if following != self._last + 1:
                self._starts.append(self._end)
                self._clusters.append(following)
            self._last = following
            self._end += 1


class Piece(MappedImage):
    """Content that lies in one piece on the volume."""

    def __init__(self, volume: Image, place: int, size: int) -> None:
        super().__init__(size)
        self._volume = volume
        self._place = place

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, ExtentKind.DATA, self._volume, self._place + offset)


class Written(MappedImage):
    """Content of which only the beginning was ever written; the rest reads as zeros."""

    def __init__(self, content: Image, written_bytes: int) -> None:
        super().__init__(content.size)
        self._content = content
        self._written_bytes = written_bytes

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        middle = min(max(self._written_bytes, offset), end)
        if offset < middle:
            yield Extent(offset, middle - offset, ExtentKind.DATA, self._content, offset)
        if middle < end:
            yield Extent(middle, end - middle, ExtentKind.ZERO, None, 0)


def chain_bytes(table: Table, cluster: int, most: int, where: str) -> int:
    """How many bytes a chain has, of a folder that does not say it.

    Raises:
        CorruptError: it is longer than `most`, or has no end.
    """
    step = table.geometry.cluster_bytes
    size = 0
    at: int | None = table.checked(cluster, where)
    while at is not None:
        last = table.run_end(at)
        size += (last - at + 1) * step
        if size > max(most, step):
            raise CorruptError(f"{where}: expected at most {most} bytes, its chain goes on")
        spend(STEP_COST_BYTES)
        at = table.following(last, where)
    return size
