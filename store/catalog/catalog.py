"""The catalog: all rows as Delta tables of Parquet, derived from packs; DuckDB asks it questions.

Defined here and only here: the tables' columns, how they follow the packs, and the questions that
`timefs log` and `timefs check` ask. Used by the commands; never on the read path. What the tables
do not cover yet (a read-only repository, another capture just now) is read from the packs and
joined in memory, so answers are always whole. One thread at a time; writers of several processes
are ordered by Delta's own commits.
"""

import datetime as dt
import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow as pa

from store.catalog.table import CatalogTable, erase_table
from store.errors import BusyError, DamagedError
from store.format.row import RowKind, epoch_of
from store.format.statement import PackReference, Statement
from store.index.index import Index
from store.index.packs import CompletePack, complete_packs
from store.log.claim import claim_catalog
from store.packs.reader import PackReader
from store.repository import Repository

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

BATCH_PACKS_MAX: Final = 64
"""Packs that are taken into a table by one commit: what bounds the memory of following."""

ROWS: Final = pa.schema(
    [
        (name, pa.int64())
        for name in (
            *("writer", "file", "kind", "flags", "offset", "length", "epoch", "sequence"),
            *("time_ns", "pack_writer", "pack_number", "slot", "check", "own_number"),
        )
    ]
    + [("day", pa.string())]
)
"""One a row of a pack; bytes and UTC nanoseconds; `own_number` is the pack that says it."""

PACKS: Final = pa.schema(
    [
        (name, pa.int64())
        for name in ("writer", "number", "epoch", "part", "last", "blocks", "bytes", "position")
    ]
)
"""One a pack of a complete transaction."""

NAMES: Final = pa.schema(
    [(name, pa.int64()) for name in ("writer", "file", "epoch", "sequence", "own_number")]
    + [("name", pa.string())]
)
"""Names of machines (file 0, in every pack) and files; ids stand for them everywhere else."""

SCHEMAS: Final = {"rows": ROWS, "packs": PACKS, "names": NAMES}
NUMBERS: Final = {"rows": "own_number", "packs": "number", "names": "own_number"}
"""The column that holds the number of the pack that says a row."""

LOG: Final = """
WITH machine AS (SELECT DISTINCT writer, name FROM names WHERE file = 0),
instant AS (SELECT writer, epoch, sequence, time_ns, flags FROM rows WHERE kind = 5),
changed AS (
    SELECT writer, epoch, sum(length) AS changed_bytes, count(DISTINCT file) AS files
    FROM rows WHERE kind <= 1 GROUP BY ALL),
stored AS (
    SELECT writer, epoch, sum(bytes) AS stored_bytes, sum(blocks) * 4096 AS new_bytes
    FROM packs GROUP BY ALL)
SELECT machine.name, instant.time_ns, instant.flags & 1 AS fuzzy, coalesce(files, 0),
       coalesce(changed_bytes, 0), coalesce(new_bytes, 0), coalesce(stored_bytes, 0)
FROM instant JOIN machine USING (writer)
LEFT JOIN changed USING (writer, epoch) LEFT JOIN stored USING (writer, epoch)
WHERE $machine IS NULL OR machine.name = $machine
ORDER BY machine.name, instant.time_ns
"""


class LogEntry(NamedTuple):
    """One instant, as `timefs log` shows it."""

    machine: str
    time_ns: int
    fuzzy: bool
    files: int
    """Files that changed."""
    changed_bytes: int
    """Bytes of them that rows of this instant cover."""
    new_bytes: int
    """Bytes of blocks that were not stored before."""
    stored_bytes: int
    """What the repository grew by."""


class Batch(NamedTuple):
    """What some packs of a writer say, as rows of a table."""

    writer: int
    first: int
    end: int
    """Last pack number + 1."""
    content: pa.Table


class Catalog:
    """The Delta tables of one repository."""

    def __init__(self, folder: Path, index: Index, reader: PackReader) -> None:
        self._folder = folder
        self._index = index
        self._reader = reader

    @classmethod
    def of(cls, repository: Repository) -> "Catalog":
        """A repository's own; apart from it, because it loads much that a mount never needs."""
        return cls(repository.root / "catalog", repository.index, repository.reader)

    def _table(self, name: str) -> CatalogTable:
        partition = "day" if name == "rows" else None
        return CatalogTable(self._folder / name, SCHEMAS[name], partition)

    def follow(self) -> None:
        """Write what the packs say and the tables do not cover yet; a torn table is made again.

        Where another process is writing it is left to that one: packs answer for what is missing.

        Raises:
            TimefsError: the tables cannot be written, or a pack not be read.
        """
        try:
            with claim_catalog(self._folder.parent, wait=False):
                self._write()
        except BusyError:
            return

    def rebuild(self) -> None:
        """Start again from nothing.

        Raises:
            TimefsError: the tables cannot be written, or a pack not be read.
        """
        with claim_catalog(self._folder.parent, wait=True):
            self.erase()
            self._write()

    def erase(self) -> None:
        """Take the tables away."""
        for name in SCHEMAS:
            erase_table(self._folder / name)

    def _write(self) -> None:
        for name in SCHEMAS:
            try:
                self._table(name).sweep()
            except DamagedError as error:
                log.warning("%s; making it again from the packs", error)
                erase_table(self._folder / name)
            for state in self._index.writers():
                if self._index.stop(state.writer) is not None:
                    continue
                while self._follow(name, state.writer):
                    pass

    def _follow(self, name: str, writer: int) -> bool:
        """Cover some more of a writer's packs; answer whether there may be others."""
        table = self._table(name)
        batch = next(self._batches(name, writer, table.covered(writer)), None)
        if batch is not None:
            table.append(writer, batch.end, batch.content)  # or another process just did
        return batch is not None

    def _batches(self, name: str, writer: int, first: int) -> Iterator[Batch]:
        """What the complete transactions' packs say from a number on."""
        while True:
            packs = complete_packs(self._index, writer, first, BATCH_PACKS_MAX)
            if not packs:
                return
            end = packs[-1].number + 1
            yield Batch(writer, first, end, self._content(name, writer, packs))
            first = end

    def _content(self, name: str, writer: int, packs: list[CompletePack]) -> pa.Table:
        if name == "packs":
            values = zip(PACKS.names, zip(*packs, strict=True), strict=True)
            return pa.Table.from_pydict({name: list(column) for name, column in values}, PACKS)
        make = _row_table if name == "rows" else _name_table
        return pa.concat_tables(
            [
                make(writer, number, epoch_of(position), self._statement(writer, number))
                for _, number, *_, position in packs
            ]
        )

    def _statement(self, writer: int, number: int) -> Statement:
        return self._reader.statement(self._reader.footer(writer, number))

    @contextmanager
    def connect(self) -> Generator["duckdb.DuckDBPyConnection"]:
        """DuckDB with the views `rows`, `packs` and `names`, whole up to now.

        Raises:
            DamagedError: a table is not what was written.
        """
        import duckdb  # noqa: PLC0415  # a fifth of a second that a capture does not need

        tables = {name: self._table(name) for name in SCHEMAS}
        self._index.follow(self._reader)  # after: it must not know less than the tables
        with self._index.snapshot(), duckdb.connect() as connection:
            for name, table in tables.items():
                table.verify()
                self._view(connection, name, table)
            yield connection

    def _view(
        self, connection: "duckdb.DuckDBPyConnection", name: str, table: CatalogTable
    ) -> None:
        schema = SCHEMAS[name]
        connection.register("batch", schema.empty_table())
        _answers(connection, f"CREATE TABLE {name}_tail AS FROM batch")
        for state in self._index.writers():
            for batch in self._batches(name, state.writer, table.covered(state.writer)):
                connection.register("batch", batch.content)
                _answers(connection, f"INSERT INTO {name}_tail FROM batch")
        names = _listed(schema)
        parts = [f"SELECT {names} FROM {name}_tail"]  # noqa: S608  # our own names only
        if table.files:
            paths = ", ".join("'" + str(file.path).replace("'", "''") + "'" for file in table.files)
            parts.append(
                f"SELECT {names} FROM read_parquet([{paths}], hive_partitioning = false)"  # noqa: S608
            )
        _answers(connection, f"CREATE VIEW {name} AS {' UNION ALL '.join(parts)}")

    def log(self, machine: str | None = None) -> list[LogEntry]:
        """Every instant of a machine, or of all, oldest first.

        Raises:
            DamagedError: a table is not what was written.
        """
        wanted = None if machine is None else _legible(machine)
        with self.connect() as connection:
            rows = _answers(connection, LOG, {"machine": wanted})
        return [LogEntry(*row)._replace(fuzzy=bool(row[2])) for row in rows]

    def differences(self) -> Iterator[str]:
        """Where the tables contradict the packs, a line each.

        Raises:
            DamagedError: a table is not what was written.
        """
        with self.connect() as connection:
            for name in SCHEMAS:
                yield from self._differences(connection, name)

    def _differences(self, connection: "duckdb.DuckDBPyConnection", name: str) -> Iterator[str]:
        names = _listed(SCHEMAS[name])
        lacks = invents = told = 0
        for state in self._index.writers():
            for batch in self._batches(name, state.writer, 0):
                connection.register("truth", batch.content)
                own = (
                    f"(FROM {name} WHERE writer = {batch.writer}"
                    f" AND {NUMBERS[name]} >= {batch.first} AND {NUMBERS[name]} < {batch.end})"
                )
                lacks += _excess(connection, "truth", own, names)
                invents += _excess(connection, own, "truth", names)
                told += _count(connection, own)
        invents += _count(connection, name) - told
        for count, what in ((lacks, "lacks or changes"), (invents, "invents or changes")):
            if count:
                yield (
                    f"catalog table {name}: it {what} {count} rows of the packs; "
                    f"run `timefs rebuild`"
                )


def _answers(
    connection: "duckdb.DuckDBPyConnection", question: str, values: dict[str, Any] | None = None
) -> list[Any]:
    """All that DuckDB answers; an unfetched answer would block its connection."""
    import duckdb  # noqa: PLC0415  # see Catalog.connect

    try:
        return connection.execute(question, values).fetchall()
    except duckdb.Error as error:
        raise DamagedError(
            f"catalog: {str(error).splitlines()[0]}; run `timefs rebuild`"
        ) from error


def _count(connection: "duckdb.DuckDBPyConnection", source: str) -> int:
    return _answers(connection, f"SELECT count(*) FROM {source}")[0][0]  # noqa: S608


def _excess(connection: "duckdb.DuckDBPyConnection", first: str, second: str, names: str) -> int:
    """How many rows the first has more than the second."""
    return _count(
        connection,
        f"(SELECT {names} FROM {first} EXCEPT ALL SELECT {names} FROM {second})",  # noqa: S608
    )


def _row_table(writer: int, number: int, epoch: int, statement: Statement) -> pa.Table:
    rows = statement.rows
    count = rows.size
    references = [PackReference(writer, number), *statement.packs]
    data = (rows["kind"] == RowKind.DATA).tolist()
    numbers: list[int] = rows["pack"].tolist()
    packs = [references[pack] for pack in numbers]
    columns: dict[str, Any] = {
        "writer": [writer] * count,
        "epoch": [epoch] * count,
        "own_number": [number] * count,
        "pack_writer": [p.writer if is_data else 0 for p, is_data in zip(packs, data, strict=True)],
        "pack_number": [p.number if is_data else 0 for p, is_data in zip(packs, data, strict=True)],
        "day": [_day(time_ns) for time_ns in rows["time_ns"].tolist()],
    }
    for name in ROWS.names:
        if name not in columns:
            columns[name] = rows[name].astype("<i8")
    return pa.Table.from_pydict(columns, ROWS)


def _name_table(writer: int, number: int, epoch: int, statement: Statement) -> pa.Table:
    named = [(writer, 0, epoch, 0, number, _legible(statement.names[0]))]
    for kind, _, file, at, _, sequence, *_ in statement.rows.tolist():
        if kind == RowKind.FILE:
            named.append((writer, file, epoch, sequence, number, _legible(statement.names[at])))
    columns = {name: [entry[at] for entry in named] for at, name in enumerate(NAMES.names)}
    return pa.Table.from_pydict(columns, NAMES)


def _legible(name: str) -> str:
    """A name as the tables hold it; those bytes that are not UTF-8 as escapes."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _listed(schema: pa.Schema) -> str:
    """The columns that tables and packs have in common, for a SELECT."""
    return ", ".join(f'"{name}"' for name in schema.names if name != "day")


def _day(time_ns: int) -> str:
    moment = dt.datetime.fromtimestamp(time_ns // 10**9, dt.UTC)
    return moment.date().isoformat()
