"""Disks made of equal blocks, each of which lies somewhere in a file or nowhere.

Defined here and only here: `BlockImage`, what the disk formats with tables have in common. Blocks
that lie together become one run, as do those that lie nowhere, so that a walk costs by what is
there. Immutable and thread-safe.
"""

from abc import abstractmethod
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np

from store.errors import CorruptError
from store.image import Extent, ExtentKind, Image, MappedImage
from timefs.guest.beneath import beneath
from timefs.guest.tables import Entries, Places, Values, breaks

ABSENT: Final = -1
"""Nowhere here: the parent's bytes, or zeros without one."""

ZERO: Final = -2
"""Zeros, whatever the parent has."""

OPAQUE: Final = -3
"""Only to be decoded."""

SINGLE: Final = -4
"""To be looked at by itself: it has parts, or is wrong."""


class _Run(NamedTuple):
    """Blocks one after another, those of `[first, end)`, that lie together or are of one kind."""

    first: int
    end: int
    place: int
    """Bytes, or the kind."""


class BlockImage(MappedImage):
    """The disk. A subclass reads the tables and says what their entries mean."""

    def __init__(
        self, size: int, block_bytes: int, file: Image, parent: Image | None, what: str
    ) -> None:
        """`file` holds the blocks; `what` names the disk's blocks in errors."""
        super().__init__(size)
        self._block_bytes = block_bytes
        self._file = file
        self._parent = parent
        self._what = what

    @abstractmethod
    def _entries(self, first: int, end: int) -> Iterator[Entries]:
        """Of the blocks of `[first, end)`, in order."""

    @abstractmethod
    def _places(self, values: Values) -> Places:
        """Where the blocks of some entries lie in the file, in bytes, or of which kind they are."""

    @abstractmethod
    def _single(self, block: int, low: int, high: int) -> Iterator[Extent]:
        """The runs of a block that is `SINGLE`, at least where it lies in `[low, high)` bytes.

        Raises:
            CorruptError: its entry is wrong.
        """

    def _decoder(self) -> Image:
        """What decodes the blocks that are `OPAQUE`, at the disk's own addresses."""
        raise NotImplementedError

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        first = offset // self._block_bytes
        end = -(-(offset + length) // self._block_bytes)
        for entries in self._entries(first, end):
            for run in self._runs(entries):
                yield from self._extents_of(run, offset, offset + length)

    def _runs(self, entries: Entries) -> Iterator[_Run]:
        first, end, values = entries
        places = self._places(values)
        if places.size < end - first:  # one stands for all, and none is a place of its own
            yield _Run(first, end, int(places[0]))
            return
        apart = np.flatnonzero(breaks(places, self._block_bytes)) + 1
        for start, stop in pairwise((0, *apart.tolist(), places.size)):
            yield _Run(first + start, first + stop, int(places[start]))

    def _extents_of(self, run: _Run, low: int, high: int) -> Iterator[Extent]:
        start = run.first * self._block_bytes
        length = min(run.end * self._block_bytes, self.size) - start
        if run.place >= 0:
            yield from self._stored(start, length, run.place)
        elif run.place == ABSENT:
            yield from beneath(self._parent, start, length)
        elif run.place == ZERO:
            yield Extent(start, length, ExtentKind.ZERO, None, 0)
        elif run.place == OPAQUE:
            yield Extent(start, length, ExtentKind.OPAQUE, self._decoder(), start)
        else:
            for block in range(run.first, run.end):
                yield from self._single(block, low, high)

    def _stored(self, start: int, length: int, place: int) -> Iterator[Extent]:
        """Bytes that lie together in the file, up to the first block that it does not hold."""
        held = length
        if place + length > self._file.size:
            held = max(self._file.size - place, 0) // self._block_bytes * self._block_bytes
        if held:
            yield Extent(start, held, ExtentKind.DATA, self._file, place)
        if held < length:
            raise CorruptError(
                f"{self._what} {(start + held) // self._block_bytes}: expected it within the "
                f"file's {self._file.size} bytes, got {place + held}; the file is cut short or "
                "its table damaged"
            )
