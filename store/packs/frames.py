"""Frames of packs, read and decoded: the blocks of slots that lie one after the other.

Defined here and only here: `FrameTable`, where a pack's slots lie, and `FrameReader` with its
bounded cache of decoded frames. Used by store.packs.reader. Thread-safe.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from store.errors import DamagedError, NotFoundError
from store.format.frame import decode_frame
from store.format.pack import Envelope
from store.format.row import BLOCK_BYTES
from store.objects.backend import Backend

if TYPE_CHECKING:
    from array import array

CACHE_BYTES: Final = 64 << 20
"""Decoded frames kept."""

READ_BYTES_MAX: Final = 1 << 20
"""Stored bytes of neighbouring frames that are read at once."""


class FrameTable(NamedTuple):
    """Where a pack's slots lie."""

    name: str
    envelope: Envelope
    first_slots: "array[int]"
    """First slot of each frame, and the number of all slots at the end."""
    offsets: "array[int]"
    stored_bytes: "array[int]"
    codecs: bytes
    checksums: "array[int]"


class Statistics:
    """Counters since the reader was made; only ever grow."""

    def __init__(self) -> None:
        self.decoded_bytes = 0
        self.stored_bytes = 0
        self.frames = 0


class FrameReader:
    """Reads and decodes frames; keeps those of which a part was wanted."""

    def __init__(self, backend: Backend, cache_bytes: int) -> None:
        self.statistics = Statistics()
        self._backend = backend
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._kept_bytes = 0
        self._local = threading.local()

    def clear(self) -> None:
        """Keep no frame."""
        with self._lock:
            self._kept.clear()
            self._kept_bytes = 0

    def read_into(self, table: FrameTable, address: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of consecutive slots; `address` is slot x 4096 + offset.

        Raises:
            DamagedError: a frame's stored bytes are wrong or missing.
        """
        first_slots = table.first_slots
        index = bisect_right(first_slots, address // BLOCK_BYTES) - 1
        last = bisect_right(first_slots, (address + len(buffer) - 1) // BLOCK_BYTES) - 1
        start = address - first_slots[index] * BLOCK_BYTES
        if index == last:
            buffer[:] = memoryview(self._frame(table, index))[start : start + len(buffer)]
        else:
            self._read_frames(table, index, last, start, buffer)

    def _frame(self, table: FrameTable, index: int) -> bytes:
        plain = self._find(table, index)
        if plain is None:
            try:
                stored = self._backend.read(
                    table.name, table.offsets[index], table.stored_bytes[index]
                )
            except NotFoundError as error:
                raise missing(table.name) from error
            plain = bytes(self._decode(table, index, stored))
            self._keep(table, index, plain)
        return plain

    def _read_frames(
        self, table: FrameTable, index: int, last: int, start: int, buffer: memoryview
    ) -> None:
        """Fill `buffer` from neighbouring frames, with few reads of the pack.

        Only a frame of which the rest may be wanted next is kept. Keeping them all costs a sixth
        of the time: each would be a piece of memory that no cache of the processor holds.
        """
        offsets, lengths = table.offsets, table.stored_bytes
        end_of_last = offsets[last] + lengths[last]
        read, read_from, read_to = memoryview(b""), 0, 0
        done = 0
        for at in range(index, last + 1):
            plain: bytes | memoryview | None = self._find(table, at)
            if plain is None:
                offset, end = offsets[at], offsets[at] + lengths[at]
                if end > read_to:
                    read_from, read_to = offset, max(end, min(end_of_last, offset + READ_BYTES_MAX))
                    read = self._stretch(table.name, read_from, read_to - read_from)
                plain = self._decode(table, at, read[offset - read_from : end - read_from])
                if len(plain) - start > len(buffer) - done:
                    plain = bytes(plain)  # a raw frame is a view of what is read over next time
                    self._keep(table, at, plain)
            part = memoryview(plain)[start : start + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)
            start = 0

    def _stretch(self, name: str, offset: int, length: int) -> memoryview:
        """A stretch of a pack, in this thread's buffer: good until its next."""
        buffer: memoryview | None = getattr(self._local, "buffer", None)
        if buffer is None or len(buffer) < length:
            buffer = self._local.buffer = memoryview(bytearray(max(length, READ_BYTES_MAX)))
        stretch = buffer[:length]
        try:
            self._backend.read_into(name, offset, stretch)
        except NotFoundError as error:
            raise missing(name) from error
        return stretch

    def _find(self, table: FrameTable, index: int) -> bytes | None:
        key = (table.name, index)
        with self._lock:
            plain = self._kept.get(key)
            if plain is not None:
                self._kept.move_to_end(key)
            return plain

    def _keep(self, table: FrameTable, index: int, plain: bytes) -> None:
        key = (table.name, index)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = plain
                self._kept_bytes += len(plain)
                while self._kept_bytes > self._cache_bytes and len(self._kept) > 1:
                    self._kept_bytes -= len(self._kept.popitem(last=False)[1])

    def _decode(
        self, table: FrameTable, index: int, stored: bytes | memoryview
    ) -> bytes | memoryview:
        """The blocks of a frame, which for a raw one are `stored` itself."""
        blocks = table.first_slots[index + 1] - table.first_slots[index]
        try:
            plain = decode_frame(stored, blocks, table.codecs[index], table.checksums[index])
        except DamagedError as error:
            self._backend.forget(table.name)
            place = f"frame {index} at {table.offsets[index]}"
            raise DamagedError(f"pack {table.name}: {place}: {error}") from error
        self.statistics.decoded_bytes += len(plain)
        self.statistics.stored_bytes += len(stored)
        self.statistics.frames += 1
        return plain


def missing(name: str) -> DamagedError:
    """A pack that ought to be there is not."""
    return DamagedError(
        f"pack {name}: missing; put it back from a copy of the repository, or run `timefs check` "
        f"to see what it hurts"
    )
