"""The index: derived from packs, kept on this machine, thrown away at will.

Defined here and only here: following the writers' packs, and the questions that images of
instants, transactions and check ask. Used by the repository. One SQLite connection a thread; any
number of processes share one index, SQLite's own locks order them.
"""

import logging
import sqlite3
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from store.errors import DamagedError, NotFoundError, TimefsError
from store.index_apply import TransactionApplier, apply_loss, write_samples
from store.index_pages import page_runs
from store.index_schema import INDEX_FORMAT, SCHEMA, decode_name, encode_name
from store.pack import pack_name
from store.packs import Footer, PackReader, frame_table
from store.row import epoch_of
from store.run import Runs

log = logging.getLogger(__name__)

SQLITE_CACHE_KIB: Final = 16 << 10
BUSY_SECONDS: Final = 60


class WriterState(NamedTuple):
    """How far the index has followed a writer."""

    writer: int
    machine: str
    next_number: int
    epoch: int
    """Newest epoch seen in any pack, complete or not."""
    position: int
    """Of the newest row of a complete transaction."""


class Index:
    """What the packs say, sorted for reading."""

    def __init__(self, folder: Path, repository: bytes) -> None:
        self._path = folder / "index.sqlite"
        self._repository = repository
        self._local = threading.local()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TimefsError(
                f"{folder}: {error.strerror}; name another place with --cache DIR"
            ) from error
        self._open_or_make()

    def _open_or_make(self) -> None:
        """A damaged or older index is thrown away: it can be made again."""
        try:
            with closing(self._connect()) as connection:
                row = connection.execute("SELECT format, repository FROM meta").fetchone()
            if row == (INDEX_FORMAT, self._repository):
                return
        except sqlite3.OperationalError as error:
            if "no such" not in str(error):
                raise TimefsError(
                    f"index {self._path}: {error}; name another place with --cache DIR"
                ) from error
        except sqlite3.DatabaseError as error:
            log.warning("index %s: %s; making it again from the packs", self._path, error)
        self.erase()

    def erase(self) -> None:
        """Start again from nothing."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        with closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("DELETE FROM meta")
            connection.execute("INSERT INTO meta VALUES (?, ?)", (INDEX_FORMAT, self._repository))
            connection.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = decode_name
        connection.execute(f"PRAGMA cache_size = -{SQLITE_CACHE_KIB}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    @property
    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection

    def close(self) -> None:
        """Let go of this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def ask(self, question: str, *values: int | str | bytes) -> list[Any]:
        """Rows of a SELECT.

        Raises:
            DamagedError: the index is damaged.
        """
        try:
            return self._connection.execute(question, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def each(self, question: str) -> Iterator[Any]:
        """Rows of a SELECT one by one, for those that may be too many to hold.

        Raises:
            DamagedError: the index is damaged.
        """
        try:
            yield from self._connection.execute(question)
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, error: sqlite3.DatabaseError) -> DamagedError:
        return DamagedError(
            f"index {self._path}: {error}; run `timefs rebuild` to make it again from the packs"
        )

    @contextmanager
    def snapshot(self) -> Generator[None]:
        """For this thread the index stands still within; `follow` does nothing there."""
        connection = self._connection
        if connection.in_transaction:
            yield
            return
        self.ask("BEGIN")
        try:
            self.ask("SELECT 1 FROM meta LIMIT 1")  # the first question fixes the state
            yield
        finally:
            self.ask("COMMIT")

    def page(self, writer: int, file: int, page: int, at: int) -> Runs:
        """The runs of a page of a file at a position, by offset, without overlap."""
        try:
            return page_runs(self._connection, writer, file, page, at)
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def writers(self) -> Sequence[WriterState]:
        """Every writer followed so far."""
        rows = self.ask("SELECT writer, machine, next_number, epoch, position FROM writers")
        return [WriterState(*row) for row in rows]

    def writer(self, number: int) -> WriterState | None:
        """One writer, if it has been seen."""
        rows = self.ask(
            "SELECT writer, machine, next_number, epoch, position FROM writers WHERE writer = ?",
            number,
        )
        return WriterState(*rows[0]) if rows else None

    def follow(self, reader: PackReader, writer: int | None = None) -> None:
        """Take in every pack sealed since: of one writer, or of all and new ones.

        A pack that is damaged, or missing though later ones are there, is recorded as lost.
        """
        if self._connection.in_transaction:
            return  # within a snapshot
        known = [writer] if writer is not None else [s.writer for s in self.writers()]
        for number in known:
            self._follow(reader, number)
        if writer is None:
            number = max(known, default=0) + 1
            while reader.backend.exists(pack_name(number, 0)) or reader.backend.list(number):
                self._follow(reader, number)
                number += 1

    def _follow(self, reader: PackReader, writer: int) -> None:
        while True:
            state = self.writer(writer)
            number = state.next_number if state else 0
            if not reader.backend.exists(pack_name(writer, number)) and not _passed(
                reader.backend.list(writer), number
            ):
                return
            self._take(reader, writer)

    def _take(self, reader: PackReader, writer: int) -> None:
        """Take in the writer's packs up to the end of the next transaction, all or nothing."""
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                _Follower(connection, reader, writer).run()
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise TimefsError(f"index {self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error


def _passed(listed: Sequence[int], number: int) -> bool:
    """Whether a writer has gone on beyond a number."""
    return bool(listed) and listed[-1] > number


class _Follower:
    """One step of following a writer, inside a SQLite transaction."""

    def __init__(self, connection: sqlite3.Connection, reader: PackReader, writer: int) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        row = connection.execute(
            "SELECT writer, machine, next_number, epoch, position FROM writers WHERE writer = ?",
            (writer,),
        ).fetchone()
        self._state = WriterState(*row) if row else WriterState(writer, "", 0, 0, 0)

    def run(self) -> None:
        while True:
            number = self._state.next_number
            name = pack_name(self._writer, number)
            if not self._reader.backend.exists(name):
                listed = self._reader.backend.list(self._writer)
                if not _passed(listed, number):
                    break
                if not self._reader.backend.exists(name):  # else it was sealed since
                    self._lose(number, f"pack {name}: missing, though later packs are there")
                    continue
            try:
                footer = self._reader.footer(self._writer, number)
                self._record(number, footer)
                if footer.envelope.last:
                    self._complete(footer)
                    break
            except (DamagedError, NotFoundError) as error:
                self._lose(number, str(error))
        self._connection.execute(
            "INSERT OR REPLACE INTO writers VALUES (?, CAST(? AS TEXT), ?, ?, ?)",
            self._state._replace(machine=encode_name(self._state.machine)),
        )

    def _record(self, number: int, footer: Footer) -> None:
        envelope = footer.envelope
        if not self._state.machine:
            machine = self._reader.statement(footer).names[0]
            self._state = self._state._replace(machine=machine)
        blocks = frame_table(footer).first_slots[-1]
        self._connection.execute(
            "INSERT OR REPLACE INTO packs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._writer,
                number,
                envelope.epoch,
                envelope.transaction,
                envelope.part,
                int(envelope.last),
                blocks,
                envelope.total_bytes,
                0,
            ),
        )
        write_samples(
            self._connection,
            self._writer,
            number,
            self._reader.backend.read(
                pack_name(self._writer, number), envelope.digests_offset, envelope.digests_bytes
            ),
        )
        epoch = max(self._state.epoch, envelope.epoch)
        self._state = self._state._replace(next_number=number + 1, epoch=epoch)

    def _complete(self, footer: Footer) -> None:
        """Apply the transaction that ends with this pack, unless a newer epoch fenced it."""
        envelope = footer.envelope
        if envelope.epoch < self._state.epoch:
            return
        parts = self._connection.execute(
            "SELECT number FROM packs WHERE writer = ? AND trans = ? ORDER BY number",
            (self._writer, envelope.transaction),
        ).fetchall()
        applier = TransactionApplier(self._connection, self._writer, envelope.epoch)
        previous = parts[0][0]
        for (number,) in parts:
            ordered = applier.position and not envelope.each_byte_once
            if ordered and self._lost_between(previous, number):
                apply_loss(self._connection, self._writer, applier.position)
            previous = number
            statement = self._reader.statement(self._reader.footer(self._writer, number))
            applier.apply(number, statement)
        if applier.position == 0:
            return
        if applier.position <= self._state.position:
            raise DamagedError(
                f"pack {pack_name(self._writer, envelope.number)}: expected rows after epoch "
                f"{epoch_of(self._state.position)}, got epoch {envelope.epoch} again"
            )
        applier.finish()
        self._connection.execute(
            "UPDATE packs SET position = ? WHERE writer = ? AND trans = ?",
            (applier.position, self._writer, envelope.transaction),
        )
        self._state = self._state._replace(position=applier.position)

    def _lost_between(self, first: int, last: int) -> bool:
        found = self._connection.execute(
            "SELECT 1 FROM lost WHERE writer = ? AND number > ? AND number < ?",
            (self._writer, first, last),
        ).fetchone()
        return found is not None

    def _lose(self, number: int, reason: str) -> None:
        """Record a lost pack; what it said is unknown from here on."""
        at = self._state.position + 1
        apply_loss(self._connection, self._writer, at)
        self._connection.execute(
            "INSERT OR REPLACE INTO lost VALUES (?, ?, ?, ?)", (self._writer, number, at, reason)
        )
        log.warning("%s; run `timefs check` to see what it hurts", reason)
        self._state = self._state._replace(next_number=number + 1)
