"""Run-lists: where on the volume the clusters of a stream lie.

Defined here and only here: `Runs`. Used by `table`, `stream` and `compressed`. A `Runs` is filled
before it is shared.
"""

from collections.abc import Iterator
from typing import Final

from store.errors import CorruptError
from timefs.guest.ntfs.boot import Geometry
from timefs.guest.ntfs.record import Attribute

HOLE: Final = -1


class Runs:
    """Where a stream's clusters lie on the volume, in stream order and without gaps."""

    def __init__(self, geometry: Geometry, where: str) -> None:
        self.cluster_bytes = geometry.cluster_bytes
        self._clusters = geometry.clusters
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
            if place < 0 or place + count > self._clusters:
                raise CorruptError(
                    f"{self._where}: expected runs within {self._clusters} clusters,"
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
