"""Attribute content as an image: run-lists, sparse runs, initialised size.

Defined here and only here: `Runs`, `Stream` and `open_pieces`. Used by `table`, `index` and
`node`. A `Runs` is filled before it is shared; images are immutable and thread-safe.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage, Extent, ExtentKind, Image, MappedImage
from timefs.guest.ntfs.boot import Geometry
from timefs.guest.ntfs.record import FLAG_COMPRESSED, FLAG_ENCRYPTED, Attribute

HOLE: Final = -1


class Runs:
    """Where a stream's clusters lie on the volume, in stream order and without gaps."""

    def __init__(self, geometry: Geometry, where: str) -> None:
        self._geometry = geometry
        self._where = where
        self.starts: list[int] = []
        """Each run's first cluster in the stream."""
        self.places: list[int] = []
        """Each run's first cluster on the volume, or HOLE."""
        self.end = 0
        """Clusters mapped so far."""

    def extend(self, piece: Attribute) -> None:
        """Add the run-list of the next piece.

        Source: NTFS documentation of the Linux-NTFS project, "Data Runs": lengths and deltas are
        little-endian and signed; a run without a delta is a hole.

        Raises:
            CorruptError: not the next piece, or runs that leave the volume or the piece's bounds.
        """
        if piece.value is not None or piece.first_cluster != self.end:
            raise CorruptError(
                f"{self._where}: expected a piece at cluster {self.end}, got {piece.first_cluster}"
            )
        place = 0
        for count, delta in _pairs(piece.pairs, self._where):
            if count <= 0:
                raise CorruptError(f"{self._where}: a run of {count} clusters")
            self.starts.append(self.end)
            self.end += count
            if delta is None:
                self.places.append(HOLE)
                continue
            place += delta
            if place < 0 or place + count > self._geometry.clusters:
                raise CorruptError(
                    f"{self._where}: expected runs within {self._geometry.clusters} clusters,"
                    f" got {count} at {place}"
                )
            self.places.append(place)
        if self.end != piece.last_cluster + 1:
            raise CorruptError(
                f"{self._where}: expected runs up to cluster {piece.last_cluster + 1},"
                f" they end at {self.end}"
            )


def _pairs(pairs: bytes, where: str) -> Iterator[tuple[int, int | None]]:
    at = 0
    while at < len(pairs) and pairs[at]:
        head = pairs[at]
        middle = at + 1 + (head & 15)
        end = middle + (head >> 4)
        if head & 15 > 8 or head >> 4 > 8 or end > len(pairs):
            raise CorruptError(f"{where}: absurd run head {head:#x}")
        count = int.from_bytes(pairs[at + 1 : middle], "little", signed=True)
        yield (
            count,
            int.from_bytes(pairs[middle:end], "little", signed=True) if end > middle else None,
        )
        at = end


class Stream(MappedImage):
    """Content that lies in clusters, mapped onto the volume's image."""

    def __init__(
        self, volume: Image, geometry: Geometry, runs: Runs, sizes: tuple[int, int]
    ) -> None:
        """`sizes` are the stream's bytes and how many of them were ever written."""
        super().__init__(sizes[0])
        self._volume = volume
        self._cluster_bytes = geometry.cluster_bytes
        self._runs = runs
        self._initialized_bytes = sizes[1]

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        starts, places = self._runs.starts, self._runs.places
        cluster_bytes = self._cluster_bytes
        end = min(offset + length, self._initialized_bytes)
        number = bisect_right(starts, offset // cluster_bytes) - 1
        at = offset
        while at < end:
            start = starts[number] * cluster_bytes
            number += 1
            next_start = starts[number] if number < len(starts) else self._runs.end
            stop = min(next_start * cluster_bytes, end)
            place = places[number - 1]
            if place == HOLE:
                yield Extent(at, stop - at, ExtentKind.ZERO, None, 0)
            else:
                place = place * cluster_bytes + at - start
                yield Extent(at, stop - at, ExtentKind.DATA, self._volume, place)
            at = stop
        if at < offset + length:
            yield Extent(at, offset + length - at, ExtentKind.ZERO, None, 0)


def open_pieces(
    volume: Image, geometry: Geometry, pieces: Sequence[Attribute], where: str
) -> Image:
    """The content of one attribute, given all its pieces in order.

    Raises:
        CorruptError: the pieces do not make up the whole.
        UnsupportedError: compressed or encrypted.
    """
    first = pieces[0]
    if first.flags & FLAG_ENCRYPTED:
        raise UnsupportedError(f"{where}: encrypted by Windows (EFS): cannot be read")
    if first.value is not None:
        if len(pieces) > 1:
            raise CorruptError(f"{where}: expected one resident attribute, got {len(pieces)}")
        return BytesImage(first.value)
    if first.flags & FLAG_COMPRESSED:
        raise UnsupportedError(f"{where}: compressed (LZNT1): not decoded by this version")
    runs = Runs(geometry, where)
    for piece in pieces:
        runs.extend(piece)
    if runs.end * geometry.cluster_bytes < first.size:
        raise CorruptError(
            f"{where}: expected runs for {first.size} bytes, they end at cluster {runs.end}"
        )
    return Stream(volume, geometry, runs, (first.size, first.initialized_bytes))
