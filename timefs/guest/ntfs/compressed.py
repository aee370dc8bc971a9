"""Streams that Windows compressed (LZNT1): units of 16 clusters, each stored, packed or a hole.

Defined here and only here: `CompressedStream`. Used by `stream.open_pieces`. Immutable but for
bounded caches, which end with their stream; thread-safe.

A unit with all its clusters is stored as it is, one with none is zeros, and one whose clusters are
followed by a hole is packed: chunks of 4 KiB, each on its own, so damage to one hurts no other.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from typing import Final, NamedTuple

from store.errors import CorruptError
from store.image import Extent, ExtentKind, Image, MappedImage
from timefs.guest.compressed import CompressedImage
from timefs.guest.ntfs.lznt1 import CHUNK_BYTES, Chunk, decode_chunk, find_chunks
from timefs.guest.ntfs.runs import HOLE, Runs

UNIT_CLUSTERS: Final = 16
CLUSTER_BYTES_MAX: Final = 4096
"""Windows compresses on no volume with larger clusters."""

UNITS_MAX: Final = 4
"""Packed units whose stored bytes one stream keeps; each has less than 64 KiB."""


class CompressedStream(MappedImage):
    """Content in units: holes and stored ones as extents of the volume, packed ones opaque."""

    def __init__(self, clusters: Image, runs: Runs, sizes: tuple[int, int], where: str) -> None:
        """`clusters` is what the runs map; `sizes`: the bytes, and how many were ever written."""
        super().__init__(sizes[0])
        self._clusters = clusters
        self._runs = runs
        self._initialized_bytes = sizes[1]
        self._unit_bytes = UNIT_CLUSTERS * runs.cluster_bytes
        self._packed = PackedUnits(clusters, runs, sizes[1], where)

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        end = min(offset + length, self._initialized_bytes)
        at = offset
        while at < end:
            number = at // self._unit_bytes
            stop = min((number + 1) * self._unit_bytes, end)
            allocated = count_clusters(self._runs, number)
            if allocated == 0:
                yield Extent(at, stop - at, ExtentKind.ZERO, None, 0)
            elif allocated == UNIT_CLUSTERS:
                yield Extent(at, stop - at, ExtentKind.DATA, self._clusters, at)
            else:
                yield Extent(at, stop - at, ExtentKind.OPAQUE, self._packed, at)
            at = stop
        if at < offset + length:
            yield Extent(at, offset + length - at, ExtentKind.ZERO, None, 0)


def count_clusters(runs: Runs, number: int) -> int:
    """How many clusters a unit has before its hole; -1 if they do not make up a unit."""
    start = number * UNIT_CLUSTERS
    end = start + UNIT_CLUSTERS
    position = bisect_right(runs.starts, start) - 1
    allocated = 0
    at = start
    hole = False
    while at < end:
        if position == len(runs.starts):
            return -1
        following = runs.starts[position + 1] if position + 1 < len(runs.starts) else runs.end
        stop = min(following, end)
        if runs.places[position] == HOLE:
            hole = True
        elif hole:
            return -1
        else:
            allocated += stop - at
        at = stop
        position += 1
    return allocated


class _Unit(NamedTuple):
    data: bytes
    chunks: list[Chunk]


class PackedUnits(CompressedImage):
    """The content of the units that are packed; of the others nothing is ever asked."""

    def __init__(self, clusters: Image, runs: Runs, initialized_bytes: int, where: str) -> None:
        super().__init__(initialized_bytes, CHUNK_BYTES)
        self._clusters = clusters
        self._runs = runs
        self._where = where
        self._unit_chunks = UNIT_CLUSTERS * runs.cluster_bytes // CHUNK_BYTES
        self._units: OrderedDict[int, _Unit] = OrderedDict()

    def piece(self, number: int) -> bytes:
        unit_number, position = divmod(number, self._unit_chunks)
        unit = self._unit(unit_number)
        where = f"{self._where}: compressed bytes at {number * CHUNK_BYTES}"
        if position >= len(unit.chunks):
            raise CorruptError(f"{where}: expected an LZNT1 chunk, found none")
        place, length, compressed = unit.chunks[position]
        content = unit.data[place : place + length]
        if compressed:
            content = decode_chunk(content, where)
        wanted = min(CHUNK_BYTES, self._size - number * CHUNK_BYTES)
        if not wanted <= len(content) <= CHUNK_BYTES:
            raise CorruptError(f"{where}: LZNT1 chunk: expected {wanted} bytes, got {len(content)}")
        return content

    def _unit(self, number: int) -> _Unit:
        unit = self._units.get(number)
        if unit is None:
            unit = self._units[number] = self._load(number)
            if len(self._units) > UNITS_MAX:
                self._units.popitem(last=False)
        return unit

    def _load(self, number: int) -> _Unit:
        """A unit's stored bytes and where the chunks in them are.

        Raises:
            CorruptError: its clusters do not make up a unit.
        """
        allocated = count_clusters(self._runs, number)
        if allocated < 0:
            raise CorruptError(f"{self._where}: compressed unit {number}: its clusters have gaps")
        cluster_bytes = self._runs.cluster_bytes
        start = number * UNIT_CLUSTERS * cluster_bytes
        data = self._clusters.read(start, allocated * cluster_bytes)
        return _Unit(data, find_chunks(data, self._unit_chunks))
