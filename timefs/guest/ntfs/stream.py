"""Attribute content as an image: resident, in clusters, sparse, initialised in part, compressed.

Defined here and only here: `Stream` and `open_pieces`. Used by `table`, `index` and `node`. Images
are immutable and thread-safe.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Final

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage, Extent, ExtentKind, Image, MappedImage
from timefs.guest.ntfs.boot import Geometry
from timefs.guest.ntfs.compressed import CLUSTER_BYTES_MAX, UNIT_CLUSTERS, CompressedStream
from timefs.guest.ntfs.record import FLAG_COMPRESSED, FLAG_ENCRYPTED, Attribute
from timefs.guest.ntfs.runs import HOLE, Runs

LZNT1: Final = 1
"""The one way of compressing that the flags of an attribute can name."""


class Stream(MappedImage):
    """Content that lies in clusters, mapped onto the volume's image."""

    def __init__(self, volume: Image, runs: Runs, sizes: tuple[int, int]) -> None:
        """`sizes` are the stream's bytes and how many of them were ever written."""
        super().__init__(sizes[0])
        self._volume = volume
        self._cluster_bytes = runs.cluster_bytes
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
    runs = Runs(geometry, where)
    for piece in pieces:
        runs.extend(piece)
    if runs.end * geometry.cluster_bytes < first.size:
        raise CorruptError(
            f"{where}: expected runs for {first.size} bytes, they end at cluster {runs.end}"
        )
    sizes = (first.size, first.initialized_bytes)
    if not first.flags & FLAG_COMPRESSED:
        return Stream(volume, runs, sizes)
    _check_compression(first, geometry, where)
    whole = runs.end * geometry.cluster_bytes
    return CompressedStream(Stream(volume, runs, (whole, whole)), runs, sizes, where)


def _check_compression(first: Attribute, geometry: Geometry, where: str) -> None:
    if first.flags & FLAG_COMPRESSED != LZNT1:
        raise UnsupportedError(f"{where}: compressed in a way (flags {first.flags:#x}) not known")
    if geometry.cluster_bytes > CLUSTER_BYTES_MAX or 1 << first.unit != UNIT_CLUSTERS:
        raise CorruptError(
            f"{where}: expected compression in units of 16 clusters of at most 4096 bytes,"
            f" got 2^{first.unit} of {geometry.cluster_bytes}"
        )
