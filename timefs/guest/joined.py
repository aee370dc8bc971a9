"""Pieces of images one after another, with zeros between them, as one image.

Defined here and only here: `Piece` and `JoinedImage`. Used by the formats whose map is a short
list. Immutable and thread-safe.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from store.image import Extent, ExtentKind, Image, MappedImage


class Piece(NamedTuple):
    """A run of another image. All numbers are bytes."""

    start: int
    length: int
    image: Image
    place: int
    """Where the run begins in `image`."""


class JoinedImage(MappedImage):
    """The pieces, which are in order and do not overlap; those without bytes do not count."""

    def __init__(self, size: int, pieces: Iterable[Piece]) -> None:
        super().__init__(size)
        self._pieces = [piece for piece in pieces if piece.length > 0]
        self._starts = [piece.start for piece in self._pieces]

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        at, end = offset, offset + length
        number = max(bisect_right(self._starts, offset) - 1, 0)
        for piece in map(self._pieces.__getitem__, range(number, len(self._pieces))):
            if piece.start >= end:
                break
            if piece.start + piece.length <= at:
                continue
            if piece.start > at:
                yield Extent(at, piece.start - at, ExtentKind.ZERO, None, 0)
            yield Extent(piece.start, piece.length, ExtentKind.DATA, piece.image, piece.place)
            at = piece.start + piece.length
        if at < end:
            yield Extent(at, end - at, ExtentKind.ZERO, None, 0)
