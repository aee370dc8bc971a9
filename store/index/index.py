"""The index: derived from packs, kept on this machine, thrown away at will.

Defined here and only here: making, replacing and opening the index, and the questions that images
of instants, transactions and check ask. Used by the repository. One SQLite connection a thread; any
number of processes share one index, SQLite's own locks order them.
"""

import logging
import os
import shutil
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from store.errors import (
    DamagedError,
    ForkedError,
    StrayError,
    TimefsError,
    UnsupportedError,
)
from store.format.pack import Head, pack_name
from store.index.database import Connection, ForeignError, Value, connect
from store.index.failures import OPEN_ROOM_BYTES, WRITE_ROOM_BYTES, boot_id, index_error, need_room
from store.index.follow import WRITERS, Follower, WriterState, passed, writer_state
from store.index.line import expect_head, head, known_writers
from store.index.pages import page_runs, zeros_until
from store.index.run import Runs
from store.index.schema import INDEX_FORMAT, SCHEMA
from store.packs.reader import PackReader
from store.posix.locks import lock_file

log = logging.getLogger(__name__)

DIGEST_MAPS: Final = "digests"
"""Folder of the digest maps beside the index: they stand on it and go with it."""


class _Opened(NamedTuple):
    """A connection and the device and number of the file that it has open."""

    connection: Connection
    file: tuple[int, int] | None


class Index:
    """What the packs say, sorted for reading."""

    def __init__(self, folder: Path, repository: bytes) -> None:
        self._path = folder / "index.sqlite"
        self._repository = repository
        self._local = threading.local()
        self._stops: dict[int, TimefsError] = {}
        self._seen: dict[int, object] = {}
        """Of each writer the newest pack known, and its object as it was looked at."""
        self._proven = False
        """Whether the index was written or proved since the operating system started."""
        self._make_folder()
        self._open_or_make()

    def _make_folder(self) -> None:
        folder = self._path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TimefsError(
                f"{folder}: {error.strerror}; name another place with --cache DIR"
            ) from error

    def _open_or_make(self) -> None:
        """A damaged or older index is thrown away: it can be made again."""
        try:
            with closing(self._connect()) as connection:
                self._prepare(connection)
        except apsw.Error as error:
            if not isinstance(self._error(error), DamagedError):
                raise self._error(error) from error
            if not isinstance(error, ForeignError):
                log.warning("index %s: %s; making it again from the packs", self._path, error)
            with self._alone():
                self._replace()

    @contextmanager
    def _alone(self) -> Generator[None]:
        """One process at a time puts another index in this one's place."""
        with self._path.with_name("index.lock").open("ab") as file:
            lock_file(file.fileno(), wait=True)
            yield

    def _replace(self) -> None:
        """A new file for one that SQLite cannot read, unless somebody was faster."""
        with suppress(apsw.Error), closing(self._connect()) as connection:
            self._prepare(connection)
            return
        self._unlink()
        with closing(self._connect()) as connection:
            self._prepare(connection)

    def _unlink(self) -> None:
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def _prepare(self, connection: Connection) -> None:
        """Empty tables, unless those of this format and repository are there."""
        if self._is_ours(connection):
            self._check_once(connection)
            return
        connection.change("BEGIN IMMEDIATE")
        if not self._is_ours(connection):
            self._empty(connection)
        connection.change("COMMIT")

    def _is_ours(self, connection: Connection) -> bool:
        found = connection.row("SELECT 1 FROM sqlite_master WHERE name = 'meta'")
        row = found and connection.row("SELECT format, repository FROM meta")
        return row == (INDEX_FORMAT, self._repository)

    def _check_once(self, connection: Connection) -> None:
        """A power cut may have torn it: after a start of the system it is read through once."""
        [(boot,)] = connection.rows("SELECT boot FROM meta")
        self._proven = boot == boot_id()
        if not self._proven:
            _read_through(connection)

    def _empty(self, connection: Connection) -> None:
        """Replace all tables by empty ones, inside the caller's SQLite transaction."""
        present = connection.rows("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in present:
            connection.change(f'DROP TABLE "{table}"')
        for statement in SCHEMA.split(";"):
            connection.change(statement)
        values = (INDEX_FORMAT, self._repository, boot_id())
        connection.change("INSERT INTO meta VALUES (?, ?, ?)", *values)
        self._proven = True

    def prove(self) -> None:
        """Read all of it.

        Raises:
            DamagedError: something in it is not what was written there.
        """
        try:
            _read_through(self._connection)
        except apsw.Error as error:
            raise self._error(error) from error

    def rebuild(self, reader: PackReader) -> None:
        """Make the index again beside this one, then put it in its place in one step.

        Others read the old one until then; killed in the middle, this leaves it as it was.

        Raises:
            TimefsError: the cache cannot be written.
        """
        folder = self._path.with_name("rebuild")
        with self._alone():
            shutil.rmtree(folder, ignore_errors=True)
            again = Index(folder, self._repository)
            try:
                again.follow(reader)
                self._take_over(again)
                self._proven = True
                self._seen.clear()
                shutil.rmtree(self._path.with_name(DIGEST_MAPS), ignore_errors=True)
            finally:
                again.close()
                shutil.rmtree(folder, ignore_errors=True)

    def _take_over(self, other: "Index") -> None:
        """Become what another index is."""
        source = other._connection  # noqa: SLF001  # an index as this one
        try:
            self._copy(source)
        except apsw.Error as error:  # so damaged that SQLite cannot even replace its pages
            if not isinstance(self._error(error), DamagedError):
                raise self._error(error) from error
            self._unlink()
            self._copy(source)

    def _copy(self, source: Connection) -> None:
        with self._connection.backup("main", source, "main") as backup:
            backup.step()

    @contextmanager
    def _changing(self) -> Generator[Connection]:
        """One SQLite transaction, all or nothing."""
        connection = self._connection
        need_room(self._path, WRITE_ROOM_BYTES)
        try:
            connection.change("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.change("ROLLBACK")
                raise
            connection.change("COMMIT")
        except apsw.Error as error:
            raise self._error(error) from error

    def _connect(self) -> Connection:
        if not self._path.with_name(f"{self._path.name}-shm").exists():
            need_room(self._path, OPEN_ROOM_BYTES)
        return connect(self._path)

    @property
    def _connection(self) -> Connection:
        """This thread's connection to the file that has the index's name now."""
        opened: _Opened | None = getattr(self._local, "opened", None)
        if opened is None or opened.file != self._file():
            self.close()
            self._make_folder()  # somebody may have deleted the cache
            self._open_or_make()
            opened = self._local.opened = _Opened(self._connect(), self._file())
        return opened.connection

    def _file(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._path)  # noqa: PTH116  # a third of Path.stat's time, asked often
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def close(self) -> None:
        """Let go of this thread's connection."""
        opened: _Opened | None = getattr(self._local, "opened", None)
        if opened is not None:
            self._local.opened = None
            with suppress(apsw.Error):  # it writes the log back: what fails now, opening it meets
                opened.connection.close()

    def ask(self, question: str, *values: Value) -> list[Any]:
        """Rows of a SELECT.

        Raises:
            DamagedError: the index is damaged.
        """
        with self._reading() as connection:
            return connection.rows(question, *values)

    def each(self, question: str) -> Iterator[Any]:
        """Rows of a SELECT one by one, for those that may be too many to hold.

        Raises:
            DamagedError: the index is damaged.
        """
        with self._reading() as connection:
            yield from connection.each(question)

    @contextmanager
    def _reading(self) -> Generator[Connection]:
        """Questions in SQL, whose errors are ours."""
        try:
            yield self._connection
        except apsw.Error as error:
            raise self._error(error) from error

    def _error(self, error: apsw.Error) -> TimefsError:
        return index_error(self._path, error)

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
            self.ask("ROLLBACK")  # there is nothing to keep, and damage that was met forbids COMMIT

    def page(self, writer: int, file: int, page: int, at: int) -> Runs:
        """The runs of a page of a file at a position, by offset, without overlap."""
        with self._reading() as connection:
            return page_runs(connection, writer, file, page, at)

    def zeros_until(self, writer: int, file: int, page: int, at: int) -> int:
        """The page before which, from this one on, all is known to be zeros at a position.

        That is the page itself where each has to be looked at.
        """
        with self._reading() as connection:
            return zeros_until(connection, writer, file, page, at)

    def writers(self) -> Sequence[WriterState]:
        """Every writer followed so far."""
        return [writer_state(row) for row in self.ask(WRITERS)]

    def writer(self, number: int) -> WriterState | None:
        """One writer, if it has been seen."""
        rows = self.ask(f"{WRITERS} WHERE writer = ?", number)
        return writer_state(rows[0]) if rows else None

    def newest_epoch(self, writer: int) -> int:
        """The newest epoch that any pack of a writer has, or may have had if it is lost."""
        rows = self.ask(
            "SELECT max(epoch) FROM (SELECT epoch FROM writers WHERE writer = ?1"
            " UNION ALL SELECT epoch FROM lost WHERE writer = ?1)",
            writer,
        )
        return rows[0][0] or 0

    def follow(self, reader: PackReader, writer: int | None = None) -> None:
        """Take in every pack sealed since: of one writer, or of all and new ones.

        A pack that is damaged, or missing though later ones are there, is recorded as lost. A
        writer whose packs do not continue what is known of it is not followed; `stop` says why.
        """
        if self._connection.in_transaction:
            return  # within a snapshot
        if not self._proven:
            self._prove(reader)
        numbers = {writer} if writer is not None else {*known_writers(reader.backend)}
        if writer is None:  # one whose packs are all gone is one as well
            numbers |= {state.writer for state in self.writers()}
        for number in sorted(numbers):
            try:
                self._expect_head(reader, number)
                self._follow(reader, number)
                self._stops.pop(number, None)
            except (ForkedError, StrayError, UnsupportedError) as error:
                self._note_stop(reader, number, error)

    def _note_stop(self, reader: PackReader, writer: int, error: TimefsError) -> None:
        if str(error) != str(self._stops.get(writer)):
            if isinstance(error, StrayError):  # the others fail every question of the machine
                log.warning("%s", error)
            reader.clear()  # what was read may be another line's
        self._stops[writer] = error

    def stop(self, writer: int) -> TimefsError | None:
        """Why the last `follow` did not go on with a writer, if it did not."""
        return self._stops.get(writer)

    def head(self, writer: int) -> Head:
        """The newest pack of a writer that the index knows."""
        with self._reading() as connection:
            return head(connection, writer)

    def _expect_head(self, reader: PackReader, writer: int) -> None:
        """Look at the newest pack known again if anything about its object has changed."""
        known = self.head(writer)
        seen = known, reader.backend.stamp(pack_name(writer, known.number))
        if self._seen.get(writer) != seen:
            with self._reading() as connection:
                expect_head(connection, reader, writer)
            self._seen[writer] = seen

    def _prove(self, reader: PackReader) -> None:
        """After a start of the system: does the index know packs that are not there?

        One process may follow a pack that another has not made durable yet; a power cut may then
        take the pack alone.
        """
        try:
            for state in self.writers():
                with self._reading() as connection:
                    expect_head(connection, reader, state.writer)
        except ForkedError as error:
            log.warning(
                "index %s: it knows packs that are not there, as after a power cut; "
                "making it again: %s",
                self._path,
                error,
            )
            self.rebuild(reader)
            return
        with self._changing() as connection:
            connection.change("UPDATE meta SET boot = ?", boot_id())
        self._proven = True

    def _follow(self, reader: PackReader, writer: int) -> None:
        while True:
            state = self.writer(writer)
            number = state.next_number if state else 0
            if not reader.backend.exists(pack_name(writer, number)) and not passed(
                reader.backend.list(writer), number
            ):
                return
            self._take(reader, writer)

    def _take(self, reader: PackReader, writer: int) -> None:
        """Take in the writer's packs up to the end of the next transaction, all or nothing."""
        with self._changing() as connection:
            Follower(connection, reader, writer).run()


def _read_through(connection: Connection) -> None:
    [(verdict,)] = connection.rows("PRAGMA quick_check(1)")
    if verdict != "ok":
        raise apsw.CorruptError(verdict.splitlines()[-1])
