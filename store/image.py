"""Image and Extent: bytes at offsets, and what runs they are made of.

Defined here and only here: the `Image` contract, the `Extent` value, images of plain bytes and of
an open file descriptor, and `MappedImage`, which turns any mapping onto other images into flat
extents. Used by the store (an instant's files), by every parser of timefs.guest and by the mount.
Every image is immutable, stateless and thread-safe: reads are positional, there is no seek.
"""

import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from enum import IntEnum
from threading import Lock
from typing import Final, NamedTuple

from store.budget import spend
from store.errors import CorruptError

WINDOW_BYTES: Final = 4 << 20
"""A mapped image composes its extents window by window of this size."""

STRIDE_BYTES: Final = 1 << 30
"""Whoever walks further than a window has this much mapped at once, which is not kept; then twice
as much each time, so that the first answer is soon there and terabytes of nothing are few steps."""

WINDOWS_MAX: Final = 8192
RUNS_MAX: Final = 64 << 10
"""Composed windows, and runs in them, that one mapped image keeps: 32 GiB of what lies in few
pieces, or 256 MiB of what lies in the smallest."""


READ_COST_BYTES: Final = 1024
"""What a read costs besides its bytes."""

RUN_COST_BYTES: Final = 256
"""What composing a run costs."""


class ExtentKind(IntEnum):
    """What a run of an image is."""

    DATA = 0
    """The bytes are `backing`'s at `place`; a reader may compose further into `backing`."""
    ZERO = 1
    """Known zeros; no backing."""
    OPAQUE = 2
    """Only `backing.read_into(place, …)` can give the bytes (compressed, encrypted, unknown)."""


class Extent(NamedTuple):
    """A run of an image. `offset`, `length` and `place` are bytes; `place` is in `backing`."""

    offset: int
    length: int
    kind: ExtentKind
    backing: "Image | None"
    place: int


class Image(ABC):
    """Bytes at offsets. All methods may be called from any thread at once."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes."""

    @abstractmethod
    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill `buffer` with the bytes from `offset`; answer how many there were before the end.

        Raises:
            TimefsError: the bytes cannot be had whole and right; the buffer is then meaningless.
        """

    @abstractmethod
    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """The runs that make up `[offset, offset + length)` within the image, in order, gapless."""

    def read(self, offset: int, length: int) -> bytes:
        """The bytes of `[offset, offset + length)`, fewer only at the end of the image."""
        buffer = bytearray(max(0, min(length, self.size - offset)))
        spend(len(buffer) + READ_COST_BYTES)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)


def read_exactly(image: Image, offset: int, length: int, what: str) -> bytes:
    """`length` bytes at `offset`, for parsers of structures.

    Raises:
        CorruptError: the image ends before that.
    """
    if offset < 0 or length < 0 or offset + length > image.size:
        raise CorruptError(
            f"{what}: expected {length} bytes at {offset}, but the image ends at {image.size}"
        )
    return image.read(offset, length)


class BytesImage(Image):
    """An image of bytes in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        return len(self._content)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        part = self._content[offset : offset + len(buffer)]
        buffer[: len(part)] = part
        return len(part)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self.size - offset)
        if length > 0:
            yield Extent(offset, length, ExtentKind.DATA, self, offset)


class DescriptorImage(Image):
    """An image of an open file or block device; the caller owns the descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.lseek(descriptor, 0, os.SEEK_END)

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self._size - offset))
        done = 0
        while done < wanted:
            count = os.preadv(self._descriptor, [buffer[done:wanted]], offset + done)
            if count == 0:
                raise CorruptError(f"source file: expected {self._size} bytes, got {offset + done}")
            done += count
        return wanted

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self._size - offset)
        if length > 0:
            yield Extent(offset, length, ExtentKind.DATA, self, offset)


class _Window(NamedTuple):
    starts: list[int]
    extents: list[Extent]


class _Windows(OrderedDict[int, _Window]):
    """The windows that one image keeps: those composed last."""

    def __init__(self) -> None:
        super().__init__()
        self._runs = 0
        self._lock = Lock()

    def keep(self, number: int, window: _Window) -> None:
        """Keep a window, unless another thread was first, as long as there is room for it."""
        with self._lock:
            if self.setdefault(number, window) is window:
                self._runs += len(window.extents)
                while len(self) > 1 and (len(self) > WINDOWS_MAX or self._runs > RUNS_MAX):
                    self._runs -= len(self.popitem(last=False)[1].extents)


class MappedImage(Image):
    """An image that is a mapping onto others: a partition, a disk format, a guest file.

    A subclass gives `map`; this class composes the mapping with those beneath it, once a window,
    so that a read costs the same however many layers there are.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._windows = _Windows()

    @property
    def size(self) -> int:
        return self._size

    @abstractmethod
    def map(self, offset: int, length: int) -> Iterable[Extent]:
        """This layer's own runs of `[offset, offset + length)`, which lies within the image.

        In order and gapless; a run may reach beyond both ends of what was asked.
        """

    def _window(self, number: int) -> _Window:
        window = self._windows.get(number)
        if window is None:
            start = number * WINDOW_BYTES
            end = min(start + WINDOW_BYTES, self._size)
            extents = list(_flatten(self.map(start, end - start), start, end))
            window = _Window([extent.offset for extent in extents], extents)
            self._windows.keep(number, window)
        return window

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = min(offset + length, self._size)
        stride_bytes = STRIDE_BYTES
        while offset < end:
            if offset % WINDOW_BYTES == 0 and end - offset > WINDOW_BYTES:
                stop = min(offset + stride_bytes, end)
                yield from _flatten(self.map(offset, stop - offset), offset, stop)
                offset = stop
                stride_bytes *= 2
                continue
            starts, extents = self._window(offset // WINDOW_BYTES)
            for position in range(bisect_right(starts, offset) - 1, len(extents)):
                run = _clip(extents[position], offset, end)
                yield run
                offset += run.length
                if offset == end:
                    return

    def read_into(self, offset: int, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self._size - offset))
        done = 0
        while done < wanted:
            at = offset + done
            starts, extents = self._window(at // WINDOW_BYTES)
            start, length, kind, backing, place = extents[bisect_right(starts, at) - 1]
            count = min(start + length - at, wanted - done)
            if kind == ExtentKind.ZERO:
                buffer[done : done + count] = bytes(count)
            else:
                assert backing is not None
                if backing.read_into(place + at - start, buffer[done : done + count]) != count:
                    raise CorruptError(f"run at {at}: expected {count} bytes, the image below ends")
            done += count
        return wanted


def _clip(extent: Extent, start: int, end: int) -> Extent:
    """The part of a run that lies in `[start, end)`."""
    first = max(extent.offset, start)
    last = min(extent.offset + extent.length, end)
    place = extent.place + first - extent.offset if extent.backing is not None else 0
    return Extent(first, last - first, extent.kind, extent.backing, place)


def _flatten(runs: Iterable[Extent], start: int, end: int) -> Iterator[Extent]:
    """Replace runs of data by the runs of the image beneath; join what then is contiguous."""
    held: Extent | None = None
    at = start
    for own in runs:
        spend(RUN_COST_BYTES)
        run = _clip(own, start, end)
        if run.length <= 0:
            continue
        if run.offset != at:
            raise CorruptError(f"mapping: expected a run at {at}, got one at {run.offset}")
        at += run.length
        for piece in _below(run):
            if held is not None and _follows(held, piece):
                held = held._replace(length=held.length + piece.length)
                continue
            if held is not None:
                yield held
            held = piece
    if held is not None:
        yield held
    if at != end:
        raise CorruptError(f"mapping: expected runs up to {end}, they end at {at}")


def _below(run: Extent) -> Iterator[Extent]:
    if run.kind != ExtentKind.DATA or run.backing is None:
        yield run
        return
    shift = run.offset - run.place
    at = run.place
    for piece in run.backing.extents(run.place, run.length):
        yield piece._replace(offset=piece.offset + shift)
        at = piece.offset + piece.length
    if at != run.place + run.length:
        raise CorruptError(f"run at {run.offset}: the image below ends at {at}")


def _follows(first: Extent, second: Extent) -> bool:
    return first.kind == second.kind and (
        first.kind == ExtentKind.ZERO
        or (first.backing is second.backing and first.place + first.length == second.place)
    )
