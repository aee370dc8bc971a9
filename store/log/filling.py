"""Filling: a pack while rows and blocks come in.

Defined here and only here: how blocks are gathered into frames and rows into a statement. Used by
transactions. One thread fills; frames are compressed on threads of the executor given.
"""

from concurrent.futures import Executor, Future
from typing import Final

import numpy as np
import numpy.typing as npt

from store.format.frame import FRAME_BLOCKS_MAX, SCATTERED_BLOCKS_MAX, Frame, encode_frame
from store.format.row import BLOCK_BYTES, ROW, Row, Rows
from store.format.statement import PackReference
from store.ranges import stretches

FRAMES_TOGETHER: Final = 16
"""Frames that a compressing thread is given at once."""


class Filling:
    """The rows, names, references, digests and frames of a pack to be."""

    def __init__(self, machine: str, workers: Executor) -> None:
        self.names = [machine]
        self.references: dict[PackReference, int] = {}
        self.row_count = 0
        self.digests: list[bytes] = []
        self.slots = 0
        self._rows: list[Rows] = []
        self._workers = workers
        self._compressing: list[Future[list[Frame]]] = []
        self._waiting: list[bytes] = []
        self._frame: list[bytes] = []
        self._frame_blocks = 0
        self._frame_end = (-1, -1)

    @property
    def rows(self) -> Rows:
        """All rows so far, in order."""
        return np.concatenate([np.empty(0, ROW), *self._rows])

    def add_row(self, row: Row) -> None:
        """One more row."""
        self.add_rows(np.array([tuple(row)], ROW))

    def add_rows(self, rows: Rows) -> None:
        """More rows."""
        self._rows.append(rows)
        self.row_count += rows.size

    def reference(self, pack: PackReference) -> int:
        """The number that stands for another pack in rows."""
        return self.references.setdefault(pack, len(self.references) + 1)

    def add_blocks(
        self, file: int, offset: int, padded: memoryview, numbers: npt.NDArray[np.int64]
    ) -> None:
        """Put blocks into the next slots.

        Args:
            file: Number of the file.
            offset: Of `padded` in it.
            padded: Whole blocks.
            numbers: Rising numbers of those to put.
        """
        self.slots += numbers.size
        for first, end in stretches(numbers):
            at = first
            while at < end:
                follows = self._frame_end == (file, offset + at * BLOCK_BYTES)
                room = FRAME_BLOCKS_MAX if follows else SCATTERED_BLOCKS_MAX
                if self._frame_blocks >= room:
                    self.close_frame()
                stop = min(end, at + FRAME_BLOCKS_MAX - self._frame_blocks)
                self._frame.append(bytes(padded[at * BLOCK_BYTES : stop * BLOCK_BYTES]))
                self._frame_blocks += stop - at
                self._frame_end = (file, offset + stop * BLOCK_BYTES)
                at = stop

    def close_frame(self) -> None:
        """The frame has all its blocks."""
        if self._frame_blocks:
            self._waiting.append(b"".join(self._frame))
            self._frame = []
            self._frame_blocks = 0
        if len(self._waiting) >= FRAMES_TOGETHER:
            self._compress()

    def _compress(self) -> None:
        self._compressing.append(self._workers.submit(encode_frames, self._waiting))
        self._waiting = []

    def close(self) -> None:
        """No more is coming; what is gathered goes to the compressing threads."""
        self.close_frame()
        self._compress()

    def frames(self) -> list[Frame]:
        """All frames, once they are compressed."""
        return [frame for some in self._compressing for frame in some.result()]


def encode_frames(plain: list[bytes]) -> list[Frame]:
    """Compress several frames."""
    return [encode_frame(each) for each in plain]
