"""Applying transactions to the index: a pure function of one writer's packs, in their order.

Defined here and only here: how rows become pages, spans, events and instants, when a page is
written whole again, and what a lost pack leaves behind. Used by store.index.index inside one SQLite
transaction; no threads.
"""

from collections import defaultdict
from typing import Final

import numpy as np

from store.errors import DamagedError
from store.format.pack import pack_name
from store.format.row import DIGEST_BYTES, INSTANT_FUZZY, RowKind, position
from store.format.statement import PackReference, Statement
from store.index.database import Connection
from store.index.pages import PageKey, page_runs, stored_checksum
from store.index.run import PAGE_BYTES, RUN, Piece, Run, cut, pieces_of_rows, whole_pages
from store.index.schema import EventKind, encode_name

DELTAS_MAX: Final = 32
"""A page's changes are merged after this many entries …"""

DELTA_RUNS_MIN: Final = 64
"""… or when they hold more runs than the page itself and at least this many."""

SAMPLE_MASK: Final = 15
"""One in 16 digests, chosen by content, is in the sampled duplicate index."""

END_OF_PAGES: Final = 1 << 52

_EVENTS: Final = {
    RowKind.FILE: EventKind.FILE,
    RowKind.RESIZE: EventKind.RESIZE,
    RowKind.DROP: EventKind.DROP,
}

Event = tuple[int, int, int, EventKind, int, int, bytes | None]
"""A row of the table of events."""

PageGroups = defaultdict[tuple[int, int], list[Run]]


class TransactionApplier:
    """Applies one transaction's statements, in order, to an open SQLite transaction."""

    def __init__(self, connection: Connection, writer: int, epoch: int) -> None:
        self._connection = connection
        self._writer = writer
        self._epoch = epoch
        self._touched: set[tuple[int, int]] = set()
        self.position = 0

    def apply(self, number: int, statement: Statement) -> None:
        """Take in one pack's rows."""
        own = PackReference(self._writer, number)
        groups: PageGroups = defaultdict(list)
        for piece in pieces_of_rows(statement.rows, self._epoch, own, statement.packs):
            self._place(piece, groups)
        self._write_pages(groups)
        restated = self._write_events(number, statement)
        self._write_changes(statement, restated)

    def _place(self, piece: Piece, groups: PageGroups) -> None:
        first, end = whole_pages(piece)
        edges = [piece]
        if piece.run.writer == 0 and end > first:
            self._connection.change(
                "INSERT INTO spans VALUES (?, ?, ?, ?, ?, 0)",
                *(self._writer, piece.file, piece.run.position, first, end),
            )
            edges = [
                piece._replace(end=first * PAGE_BYTES),
                piece._replace(start=end * PAGE_BYTES),
            ]
        for edge in edges:
            for page, run in cut(edge):
                groups[edge.file, page].append(run)

    def _write_pages(self, groups: PageGroups) -> None:
        entries: list[tuple[int | bytes, ...]] = []
        for (file, page), runs in groups.items():
            blob = np.array([tuple(run) for run in runs], dtype=RUN).tobytes()
            first, last = runs[0].position, runs[-1].position
            key = PageKey(self._writer, file, page, last)
            entries.append((*key, 0, first, blob, stored_checksum(key, blob)))
        self._connection.change_many("INSERT INTO pages VALUES (?,?,?,?,?,?,?,?)", entries)
        self._touched.update(groups)

    def _write_events(self, number: int, statement: Statement) -> list[int]:
        """Write what is new of files and instants; answers the sequences of what was known."""
        restated: list[int] = []
        rows = statement.rows
        events: list[tuple[int, ...]] = rows[rows["kind"] > RowKind.ZERO].tolist()
        for kind, flags, file, offset, _, sequence, time_ns, *_ in events:
            at = position(self._epoch, sequence)
            if kind == RowKind.INSTANT:
                self._connection.change(
                    "INSERT OR REPLACE INTO instants VALUES (?, ?, ?, ?)",
                    *(self._writer, at, time_ns, flags & INSTANT_FUZZY),
                )
            elif kind in _EVENTS:
                named = kind == RowKind.FILE
                event = (
                    self._writer,
                    file,
                    at,
                    _EVENTS[RowKind(kind)],
                    time_ns,
                    flags if named else offset,
                    encode_name(statement.names[offset]) if named else None,
                )
                if self._is_known(event):
                    restated.append(sequence)
                else:
                    self._connection.change(
                        "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", *event
                    )
            else:
                raise DamagedError(
                    f"pack {pack_name(self._writer, number)}: row kind: expected 0 to 5, "
                    f"got {kind}; use a newer timefs"
                )

        return restated

    def _is_known(self, event: Event) -> bool:
        """Whether the index says the same of the file already: every capture states all anew."""
        writer, file, _, kind, _, value, name = event
        if kind == EventKind.DROP:
            return False
        newest = self._connection.row(
            "SELECT kind = ? AND value = ? AND name IS ? FROM events"
            " WHERE writer = ? AND file = ? AND kind IN (?, ?, ?) ORDER BY position DESC LIMIT 1",
            *(kind, value, name, writer, file, kind, EventKind.DROP, EventKind.LOST),
        )
        return newest is not None and bool(newest[0])

    def _write_changes(self, statement: Statement, restated: list[int]) -> None:
        rows = statement.rows
        if not rows.size:
            return
        self.position = max(self.position, position(self._epoch, int(rows["sequence"].max())))
        rows = rows[(rows["kind"] <= RowKind.RESIZE) & ~np.isin(rows["sequence"], restated)]
        for file in np.unique(rows["file"]).tolist():
            own = rows[rows["file"] == file]
            self._connection.change(
                "INSERT INTO changes VALUES (?, ?, ?, ?, ?)",
                self._writer,
                file,
                position(self._epoch, int(own["sequence"].max())),
                position(self._epoch, int(own["sequence"].min())),
                int(own["time_ns"].max()),
            )

    def finish(self) -> None:
        """Write pages whole again whose changes have grown too long to read through."""
        for file, page in sorted(self._touched):
            if self._too_long(file, page):
                runs = page_runs(self._connection, self._writer, file, page, self.position)
                blob = runs.tobytes()
                key = PageKey(self._writer, file, page, self.position)
                self._connection.change(
                    "INSERT INTO pages VALUES (?,?,?,?,1,?,?,?)",
                    *(*key, self.position, blob, stored_checksum(key, blob)),
                )

    def _too_long(self, file: int, page: int) -> bool:
        key = (self._writer, file, page)
        base = self._connection.row(
            "SELECT position, length(runs) FROM pages WHERE writer = ? AND file = ? AND page = ?"
            " AND whole = 1 ORDER BY position DESC LIMIT 1",
            *key,
        ) or (-1, 0)
        entries, size = self._connection.row(
            "SELECT count(*), coalesce(sum(length(runs)), 0) FROM pages"
            " WHERE writer = ? AND file = ? AND page = ? AND whole = 0 AND position > ?",
            *(*key, base[0]),
        )
        enough = max(DELTA_RUNS_MIN * RUN.itemsize, base[1])
        return entries > 1 and (entries > DELTAS_MAX or size > enough)


def apply_loss(connection: Connection, writer: int, at: int) -> None:
    """A pack of the writer is lost: from `at` on nothing is known of its files until rewritten."""
    files = connection.rows("SELECT DISTINCT file FROM events WHERE writer = ?", writer)
    for (file,) in files:
        connection.change(
            "INSERT OR REPLACE INTO spans VALUES (?, ?, ?, 0, ?, 1)",
            *(writer, file, at, END_OF_PAGES),
        )
        connection.change(
            "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, 0, 0, NULL)",
            *(writer, file, at, EventKind.LOST),
        )
        connection.change(
            "INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?, 0)", writer, file, at, at
        )


def write_samples(connection: Connection, writer: int, number: int, digests: bytes) -> None:
    """Remember one in 16 of a pack's digests for the duplicate search."""
    words = np.frombuffer(digests, "<i8").reshape(-1, DIGEST_BYTES // 8)[:, 0]
    chosen = words[(words & SAMPLE_MASK) == 0].tolist()
    connection.change_many(
        "INSERT OR IGNORE INTO samples VALUES (?, ?, ?)",
        [(prefix, writer, number) for prefix in chosen],
    )
