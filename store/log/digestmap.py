"""Digest maps: the digest of every block of a file's newest state, for the rescan.

Defined here and only here: the map's file, in the cache, and how it is loaded, changed and kept. A
map is derived: a missing, torn or outdated one is made again from the index and the packs. Used by
the repository (makes it) and the rescan (compares and changes it). One thread at a time.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from store.errors import DamagedError
from store.format.row import BLOCK_BYTES, DIGEST_BYTES, blocks_of
from store.index.run import LOST_WRITER, Run, Runs
from store.objects.backend import translate
from store.packs.reader import PackReader

MAGIC: Final = b"timefsDM"
HEADER_BYTES: Final = 64
HASHED_BYTES: Final = 64 << 10
"""What is all zeros in pieces of this size is neither hashed nor copied: it may be a hole."""

ZERO_DIGEST: Final = bytes(DIGEST_BYTES)
"""Stands for a block of zeros."""

UNKNOWN_DIGEST: Final = b"\xff" * DIGEST_BYTES
"""Stands for a block that must be stored whatever it holds."""

Digests = npt.NDArray[np.uint64]
"""Shape (blocks, 2): both halves of each digest."""


class DigestMap:
    """A working copy of a file's map; `keep` makes it the map of a new position."""

    def __init__(self, path: Path, size: int, lost_packs: int) -> None:
        """Make a map.

        Args:
            path: Where it is kept.
            size: Bytes of the file.
            lost_packs: How many packs the index knows to be lost; a map kept when there were fewer
                may say of a block that it is stored when it no longer is.
        """
        self._path = path
        self._lost_packs = lost_packs
        self._working = path.with_name(f"{path.name}.{os.getpid()}.new")
        self._file: BinaryIO | None = None
        self.size = size
        """Bytes of the file that the map describes; all beyond is unknown."""
        self._blocks: Digests | None = None

    def open(self, position: int, make: Callable[["DigestMap"], None]) -> None:
        """Start from the kept map if it is that of `position`, else from what `make` fills in.

        The caller holds the machine's claim: other working copies are those of killed captures.

        Raises:
            TimefsError: the cache cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for left in self._path.parent.glob(f"{self._path.name}.*.new"):
                left.unlink(missing_ok=True)
            self._file = self._working.open("w+b", buffering=0)
            kept = self._kept_is(position)
            if kept:
                self._copy_kept()
            self.resize(self.size)
            if not kept:
                make(self)
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError):
                raise translate(error, str(self._working)) from error
            raise

    @property
    def _descriptor(self) -> int:
        assert self._file is not None
        return self._file.fileno()

    def _kept_is(self, position: int) -> bool:
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            header = file.read(HEADER_BYTES)
            return header[:32] == self._header(position, self.size) and header[32:] == _hash(file)
        return False

    def _header(self, position: int, size: int) -> bytes:
        numbers = (position, size, self._lost_packs)
        return MAGIC + b"".join(number.to_bytes(8, "little") for number in numbers)

    def _copy_kept(self) -> None:
        with self._path.open("rb") as source:
            for start, end in _data(source):
                at = start
                while at < end:
                    at += os.copy_file_range(
                        source.fileno(), self._descriptor, end - at, offset_src=at, offset_dst=at
                    )

    def resize(self, size: int) -> None:
        """Describe a file of that size; blocks that are new start as zeros."""
        assert self._file is not None
        self._blocks = None
        count = blocks_of(size)
        os.ftruncate(self._descriptor, HEADER_BYTES + count * DIGEST_BYTES)
        self.size = size
        if count:
            shape = (count, DIGEST_BYTES // 8)
            self._blocks = np.memmap(self._file, np.uint64, "r+", HEADER_BYTES, shape)

    def blocks(self, first: int, count: int) -> Digests:
        """The digests of `count` blocks from `first` on; writing to them changes the map.

        Raises:
            FullError: no room for them.
        """
        assert self._blocks is not None
        if count:  # room is asked for here: a full disk must not be a signal at a store to memory
            offset, length = HEADER_BYTES + first * DIGEST_BYTES, count * DIGEST_BYTES
            try:
                os.posix_fallocate(self._descriptor, offset, length)
            except OSError as error:
                raise translate(error, str(self._working)) from error
        return self._blocks[first : first + count]

    def filled(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """Stretches of blocks from `first` to `end` outside which all are known as zeros."""
        assert self._file is not None
        for start, stop in _data(self._file, HEADER_BYTES + first * DIGEST_BYTES):
            begin = max(first, (start - HEADER_BYTES) // DIGEST_BYTES)
            if begin >= end:
                return
            yield begin, min(end, -(-(stop - HEADER_BYTES) // DIGEST_BYTES))

    def forget(self, offset: int) -> None:
        """Whatever block `offset` lies in must be stored."""
        if offset < self.size:
            block = offset // BLOCK_BYTES
            self.blocks(block, 1)[:] = np.frombuffer(UNKNOWN_DIGEST, np.uint64)

    def keep(self, position: int) -> None:
        """Make the working copy the map of `position`, unless a rebuild threw it away meanwhile.

        Raises:
            TimefsError: the cache cannot be written.
        """
        assert self._file is not None
        self._blocks = None
        header = self._header(position, self.size)
        try:
            os.pwrite(self._descriptor, header, 0)
            os.pwrite(self._descriptor, _hash(self._file), len(header))
            os.fdatasync(self._descriptor)
            with suppress(FileNotFoundError):
                self._working.replace(self._path)
        except OSError as error:
            raise translate(error, str(self._path)) from error

    def discard(self) -> None:
        """Throw the working copy away, unless it was kept."""
        self._blocks = None
        if self._file is not None:
            self._file.close()
        self._working.unlink(missing_ok=True)


def _data(file: BinaryIO, start: int = 0) -> Iterator[tuple[int, int]]:
    """Stretches of a file from `start` on that are not holes."""
    size = os.fstat(file.fileno()).st_size
    while start < size:
        try:
            start = os.lseek(file.fileno(), start, os.SEEK_DATA)
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            end = size  # a file system that knows no holes
        yield start, end
        start = end


def _hash(file: BinaryIO) -> bytes:
    """The proof of a map: of its header's numbers and of every piece that is not zeros."""
    hasher = blake3(os.pread(file.fileno(), 32, 0))
    done = 0
    for start, end in _data(file):
        at = max(done, start // HASHED_BYTES * HASHED_BYTES)
        while at < end:
            content = os.pread(file.fileno(), HASHED_BYTES, at)
            if at == 0:
                content = content[HEADER_BYTES:]
            if content.count(0) != len(content):
                hasher.update(at.to_bytes(8, "little") + content)
            at += HASHED_BYTES
        done = max(done, at)
    return hasher.digest()


def page_digests(reader: PackReader, runs: Runs, length: int, blocks: Digests) -> None:
    """Fill in the digests of a page's blocks from its runs; what they do not tell is unknown.

    Args:
        reader: Reads the packs' digests.
        runs: Of the page, without overlap.
        length: Bytes of the file in this page.
        blocks: The map's digests for the page.
    """
    blocks[:] = np.frombuffer(UNKNOWN_DIGEST, np.uint64)
    for fields in runs.tolist():
        run = Run(*fields)
        end_offset = run.offset + run.length
        first, end = blocks_of(run.offset), min(end_offset, length) // BLOCK_BYTES
        if run.writer == 0 and end_offset >= length:
            end = len(blocks)
        elif end_offset == length and run.skip + run.length == run.row_length:
            end = len(blocks)  # the file's last block, filled up with zeros like its row's
        if run.writer == 0:
            blocks[first:end] = 0
        elif run.writer != LOST_WRITER and end > first and _on_grid(run):
            slot = run.slot + run.skip // BLOCK_BYTES
            with suppress(DamagedError):  # a lost pack's blocks are unknown and stored again
                known = reader.digests(run.writer, run.number, slot, end - first)
                blocks[first:end] = np.frombuffer(known, np.uint64).reshape(-1, 2)


def _on_grid(run: Run) -> bool:
    return run.offset % BLOCK_BYTES == 0 and run.skip % BLOCK_BYTES == 0
