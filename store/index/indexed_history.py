"""History as the index answers it, each answer up to the newest sealed transaction.

Defined here and only here: `IndexedHistory`. Used by the repository. Thread-safe.
"""

from collections.abc import Sequence

import numpy as np

from store.clock import Clock
from store.errors import DamagedError, ForkedError, NotFoundError, UnsupportedError
from store.format.row import epoch_of, position, sequence_of
from store.history import FileState, History, Instant
from store.image import Image
from store.index.file_image import FileImage, PageCache
from store.index.files import files_at
from store.index.index import Index
from store.index.run import Runs
from store.index.schema import decode_name, encode_name
from store.packs.reader import PackReader

_BY_MACHINE = "SELECT writer FROM writers WHERE machine = ? ORDER BY writer LIMIT 1"
"""The first who claimed a name has it."""


class IndexedHistory(History):
    """What the packs tell about time."""

    def __init__(self, index: Index, reader: PackReader, clock: Clock) -> None:
        self._index = index
        self._reader = reader
        self._clock = clock
        self._pages = PageCache(self._page, index.zeros_until)

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def machines(self) -> Sequence[str]:
        self._index.follow(self._reader)
        rows = self._index.ask(
            "SELECT machine FROM writers WHERE writer IN (SELECT writer FROM instants)"
        )
        return sorted({decode_name(machine) for (machine,) in rows})

    def _writer(self, machine: str) -> int:
        rows = self._index.ask(_BY_MACHINE, encode_name(machine))
        if not rows:
            self._index.follow(self._reader)
            rows = self._index.ask(_BY_MACHINE, encode_name(machine))
        else:
            self._index.follow(self._reader, rows[0][0])
        if not rows:
            raise NotFoundError(f"{machine}: no such machine; `timefs log` lists them")
        stop = self._index.stop(rows[0][0])
        if isinstance(stop, ForkedError | UnsupportedError):
            self._pages.clear()
            raise type(stop)(str(stop))
        return rows[0][0]

    def instants(self, machine: str) -> Sequence[Instant]:
        return self._instants(machine, "ORDER BY time_ns")

    def _instants(self, machine: str, condition: str, *values: int) -> list[Instant]:
        writer = self._writer(machine)
        rows = self._index.ask(
            f"SELECT position, time_ns, fuzzy FROM instants WHERE writer = ? {condition}",  # noqa: S608
            writer,
            *values,
        )
        return [
            Instant(machine, writer, epoch_of(at), sequence_of(at), time_ns, bool(fuzzy))
            for at, time_ns, fuzzy in rows
        ]

    def changed(self, machine: str) -> Sequence[Instant]:
        instants = self.instants(machine)
        if not instants:
            return []
        rows = self._index.ask(
            "SELECT first_position, last_position FROM changes WHERE writer = ?1"
            " UNION ALL SELECT position, position FROM events WHERE writer = ?1",
            instants[0].writer,
        )
        firsts, lasts = np.sort(np.array(rows, np.int64).reshape(-1, 2), axis=0).T
        own = np.array([position(each.epoch, each.sequence) for each in instants], np.int64)
        begun = np.searchsorted(firsts, own, side="right")
        ended = np.searchsorted(lasts, [-1, *own[:-1]], side="right")
        return [instants[at] for at in np.flatnonzero(begun > ended).tolist()]

    def at(self, machine: str, time_ns: int) -> Instant:
        found = self._instants(machine, "AND time_ns <= ? ORDER BY time_ns DESC LIMIT 1", time_ns)
        if not found:
            raise NotFoundError(f"this time is before the first instant of {machine}")
        return found[0]

    def latest(self, machine: str) -> Instant:
        found = self._instants(machine, "ORDER BY fuzzy, time_ns DESC LIMIT 1")
        if not found:
            raise NotFoundError(f"{machine}: it has no instant yet")
        return found[0]

    def watermark_ns(self, machine: str) -> int:
        newest = self.newest(machine)
        return newest.time_ns if newest else 0

    def newest(self, machine: str) -> Instant | None:
        """The newest instant, consistent or not."""
        found = self._instants(machine, "ORDER BY time_ns DESC LIMIT 1")
        return found[0] if found else None

    def files(self, instant: Instant) -> Sequence[FileState]:
        self._reach(instant.writer, position(instant.epoch, instant.sequence))
        return files_at(self._index, instant)

    def open(self, instant: Instant, file: FileState) -> Image:
        name = f"{instant.machine} {file.name}"
        if file.size < 0:
            raise DamagedError(f"{name}: its size went with a lost pack; run `timefs check`")
        at = position(file.changed_epoch, file.changed_sequence)
        return FileImage(
            self._pages, self._reader, instant.writer, file.number, at, file.size, name
        )

    def _page(self, writer: int, file: int, page: int, at: int) -> Runs:
        self._reach(writer, at)
        return self._index.page(writer, file, page, at)

    def _reach(self, writer: int, at: int) -> None:
        """See that the index knows a position: it may have been made anew since that was named."""
        state = self._index.writer(writer)
        if state is None or state.position < at:
            self._index.follow(self._reader, writer)
