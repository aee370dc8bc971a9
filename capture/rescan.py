"""Rescan: read files whole, store what differs from last time, commit one instant for all.

Defined here and only here: how a source file is read (holes skipped, memory bounded), compared
block by block with the digest map, and turned into changes. Used by `timefs capture`. One capture
runs on the calling thread; reading and hashing run on threads of its own.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np

from store.errors import DeniedError, IsFolderError, NotFoundError, TimefsError
from store.format.digest import digests_of, nonzero_blocks
from store.format.keys import Keys
from store.format.row import BLOCK_BYTES, DIGEST_BYTES, blocks_of
from store.log.digestmap import DigestMap
from store.ranges import stretches

CHUNK_BYTES: Final = 4 << 20
CHUNKS_IN_FLIGHT: Final = 4
HOLE_BLOCKS: Final = 1 << 16
"""Blocks of a hole that are looked up in the map at once."""


class Sink(Protocol):
    """Where changes go: a store transaction."""

    def zero(self, file: int, offset: int, length: int) -> None:
        """`length` bytes at `offset` are zeros."""
        ...

    def resize(self, file: int, size: int) -> None:
        """The file's size."""
        ...

    def blocks(  # the store's own signature
        self,
        file: int,
        offset: int,
        length: int,
        padded: memoryview,
        wanted: list[int],
        digests: bytes,
    ) -> None:
        """Store some blocks of the bytes at `offset`."""
        ...


class SourceState(NamedTuple):
    """What tells whether a source changed while it was read."""

    size: int
    changes: tuple[int, ...]


class Source:
    """An open file or block device to be captured under a name."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        try:  # without O_NONBLOCK a pipe would keep us waiting for a writer
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError as error:
            raise NotFoundError(f"{path}: no such file; nothing was stored") from error
        except PermissionError as error:
            raise DeniedError(f"{path}: not allowed to read it; nothing was stored") from error
        except OSError as error:
            raise TimefsError(f"{path}: {error.strerror}; nothing was stored") from error
        mode = os.fstat(self.descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            os.close(self.descriptor)
            what = "a folder" if stat.S_ISDIR(mode) else "neither a file nor a block device"
            raise IsFolderError(f"{path}: expected a file or block device, found {what}")
        self.state = self.look()

    def look(self) -> SourceState:
        """Size and change marks as they are now."""
        status = os.fstat(self.descriptor)
        if stat.S_ISBLK(status.st_mode):
            return SourceState(
                os.lseek(self.descriptor, 0, os.SEEK_END), _device_writes(status.st_rdev)
            )
        return SourceState(status.st_size, (status.st_mtime_ns, status.st_ctime_ns))

    def data(self) -> Iterator[tuple[int, int]]:
        """Stretches that may hold anything but zeros: (start, end), rising."""
        at, size = 0, self.state.size
        while at < size:
            try:
                start = os.lseek(self.descriptor, at, os.SEEK_DATA)
                end = min(os.lseek(self.descriptor, start, os.SEEK_HOLE), size)
            except OSError as error:
                if error.errno == errno.ENXIO:  # only a hole is left
                    return
                start, end = at, size  # a block device, or a file system that knows no holes
            if start >= end:
                return
            yield start, end
            at = end

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)


def _device_writes(device: int) -> tuple[int, ...]:
    """Writes a block device has seen since boot, as the kernel counts them."""
    path = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    fields = path.read_text().split()
    return int(fields[4]), int(fields[6])


class Chunk(NamedTuple):
    """A piece of a source, read and hashed."""

    offset: int
    length: int
    buffer: bytearray
    """What is read into; used again for another chunk."""
    padded: memoryview
    wanted: list[int]
    """Blocks that hold data and differ from the map."""
    digests: bytes
    """Theirs."""
    zeros: list[tuple[int, int]]
    """Stretches of blocks, from the chunk's first, that became zeros."""


class Scan:
    """One source against its digest map."""

    def __init__(
        self,
        source: Source,
        digest_map: DigestMap,
        keys: Keys,
        progress: Callable[[int], None],
    ) -> None:
        self._source = source
        self._map = digest_map
        self._keys = keys
        self._progress = progress
        self._known_bytes = digest_map.size
        self._buffers = [bytearray(CHUNK_BYTES) for _ in range(CHUNKS_IN_FLIGHT)]
        self.read_bytes = 0

    def run(self, sink: Sink, file: int) -> bool:
        """Send all changes; answer whether the source stayed as it was meanwhile."""
        size = self._source.state.size
        sink.resize(file, size)
        if size != self._known_bytes:
            self._map.forget(max(0, min(size, self._known_bytes) - 1))
        self._known_bytes = min(self._known_bytes, size)
        self._map.resize(size)
        with ThreadPoolExecutor(2, "scan") as workers:
            pending: deque[Future[Chunk]] = deque()
            for start, end, hole in self._pieces(size):
                if hole:
                    while pending:
                        self._send(pending.popleft().result(), sink, file)
                    self._hole(start, end, sink, file)
                    continue
                pending.append(workers.submit(self._read, start, end, self._buffers.pop()))
                if len(pending) >= CHUNKS_IN_FLIGHT:
                    self._send(pending.popleft().result(), sink, file)
            while pending:
                self._send(pending.popleft().result(), sink, file)
        return self._source.look() == self._source.state

    def _pieces(self, size: int) -> Iterator[tuple[int, int, bool]]:
        """The whole file as chunks on the 4 MiB grid and holes on the block grid, in order."""
        done = 0
        for start, end in self._source.data():
            first = max(done, start // BLOCK_BYTES * BLOCK_BYTES)
            last = min(blocks_of(end) * BLOCK_BYTES, size)
            if first > done:
                yield done, first, True
            while first < last:
                stop = min(last, (first // CHUNK_BYTES + 1) * CHUNK_BYTES)
                yield first, stop, False
                first = stop
            done = max(done, last)
        if done < size:
            yield done, size, True

    def _read(self, start: int, end: int, buffer: bytearray) -> Chunk:
        length = end - start
        padded = memoryview(buffer)[: blocks_of(length) * BLOCK_BYTES]
        done = 0
        while done < length:
            try:
                count = os.preadv(self._source.descriptor, [padded[done:length]], start + done)
            except OSError as error:
                raise TimefsError(
                    f"{self._source.path} at {start + done}: {error.strerror}; nothing was stored"
                ) from error
            if count == 0:  # cut short meanwhile: the size tells, and the instant is fuzzy
                break
            done += count
        padded[done:] = bytes(len(padded) - done)
        nonzero = nonzero_blocks(np.frombuffer(padded, np.uint8))
        first = start // BLOCK_BYTES
        known = self._map.blocks(first, nonzero.size)
        fresh = np.arange(first, first + nonzero.size) >= blocks_of(self._known_bytes)
        filled = np.flatnonzero(nonzero)
        digests = digests_of(self._keys.digest, padded, filled.tolist())
        halves = np.frombuffer(digests, np.uint64).reshape(-1, DIGEST_BYTES // 8)
        changed = fresh[filled] | (halves != known[filled]).any(axis=1)
        became_zero = ~nonzero & (fresh | known.any(axis=1))
        known[filled] = halves
        known[~nonzero] = 0
        return Chunk(
            start,
            length,
            buffer,
            padded,
            filled[changed].tolist(),
            halves[changed].tobytes(),
            stretches(np.flatnonzero(became_zero)),
        )

    def _send(self, chunk: Chunk, sink: Sink, file: int) -> None:
        if chunk.wanted:
            sink.blocks(file, chunk.offset, chunk.length, chunk.padded, chunk.wanted, chunk.digests)
        for first, end in chunk.zeros:
            start = first * BLOCK_BYTES
            sink.zero(file, chunk.offset + start, min(end * BLOCK_BYTES, chunk.length) - start)
        self._buffers.append(chunk.buffer)
        self.read_bytes += chunk.length
        self._progress(chunk.length)

    def _hole(self, start: int, end: int, sink: Sink, file: int) -> None:
        """Zeros that need not be read: told where there was data before, and where all is new."""
        known_end = min(end, blocks_of(self._known_bytes) * BLOCK_BYTES)
        for first, last in self._map.filled(start // BLOCK_BYTES, blocks_of(max(start, known_end))):
            for at in range(first, last, HOLE_BLOCKS):
                known = self._map.blocks(at, min(HOLE_BLOCKS, last - at))
                was_data = known.any(axis=1)
                for begin, stop in stretches(np.flatnonzero(was_data)):
                    offset = (at + begin) * BLOCK_BYTES
                    sink.zero(file, offset, min((at + stop) * BLOCK_BYTES, end) - offset)
                known[was_data] = 0
        at = max(start, known_end)
        if at < end:
            sink.zero(file, at, end - at)
        self._progress(end - start)
