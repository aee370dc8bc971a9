"""The catalog: all rows as Delta tables of Parquet, derived from packs; DuckDB asks it questions.

Defined here and only here: the tables' columns, how they follow the packs, and the questions that
`timefs log` and `timefs check` ask. Used by the commands; never on the read path. What the tables
do not cover yet (a read-only repository, another capture just now) is read from the packs and
joined in memory, so answers are always whole. One thread at a time; writers of several processes
are ordered by Delta's own commits.
"""

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb
import pyarrow as pa
from blake3 import blake3
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from store.errors import DamagedError
from store.index import Index
from store.pack import PackReference, Statement
from store.packs import PackReader
from store.row import RowKind, epoch_of

CHECKSUMS: Final = "_timefs_checksums"

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
    [("writer", pa.int64()), ("file", pa.int64()), ("sequence", pa.int64()), ("name", pa.string())]
)
"""Names of machines (file 0) and files; ids stand for them everywhere else."""

SCHEMAS: Final = {"rows": ROWS, "packs": PACKS, "names": NAMES}

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


class Catalog:
    """The Delta tables of one repository."""

    def __init__(self, folder: Path, index: Index, reader: PackReader) -> None:
        self._folder = folder
        self._index = index
        self._reader = reader

    def follow(self) -> None:
        """Write what the packs say and the tables do not cover yet."""
        for table in SCHEMAS:
            for state in self._index.writers():
                self._follow(table, state.writer)

    def _follow(self, table: str, writer: int) -> None:
        while True:
            covered = self._covered(table, writer)
            content = self._tail(table, writer, covered)
            if content is None:
                return
            newest = self._newest(writer)
            properties = CommitProperties(
                app_transactions=[Transaction(f"writer-{writer:08x}", newest)]
            )
            try:
                write_deltalake(
                    str(self._folder / table),
                    content,
                    mode="append",
                    partition_by=["day"] if table == "rows" else None,
                    commit_properties=properties,
                )
            except CommitFailedError:
                continue  # another process covered the same packs first: look again
            self._write_checksums(table)
            return

    def erase(self) -> None:
        """Start again from nothing."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _table(self, table: str) -> DeltaTable | None:
        try:
            return DeltaTable(str(self._folder / table))
        except TableNotFoundError:
            return None

    def _covered(self, table: str, writer: int) -> int:
        delta = self._table(table)
        version = delta.transaction_version(f"writer-{writer:08x}") if delta else None
        return version or 0

    def _newest(self, writer: int) -> int:
        state = self._index.writer(writer)
        return state.position if state else 0

    def _files(self, table: str) -> list[Path]:
        delta = self._table(table)
        if delta is None:
            return []
        return [Path(uri.removeprefix("file://")) for uri in delta.file_uris()]

    def _checksum_path(self, table: str, file: Path) -> Path:
        return self._folder / table / CHECKSUMS / f"{file.name}.blake3"

    def _write_checksums(self, table: str) -> None:
        for file in self._files(table):
            path = self._checksum_path(table, file)
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                path.write_text(blake3(file.read_bytes()).hexdigest() + "\n")

    def verify(self) -> None:
        """Prove that the Parquet files are those that were written.

        Raises:
            DamagedError: one is not.
        """
        for table in SCHEMAS:
            for file in self._files(table):
                try:
                    expected = self._checksum_path(table, file).read_text().strip()
                    got = blake3(file.read_bytes()).hexdigest()
                except FileNotFoundError as error:
                    raise DamagedError(
                        f"catalog {error.filename}: missing; run `timefs rebuild`"
                    ) from error
                if got != expected:
                    raise DamagedError(
                        f"catalog {file}: checksum: expected {expected[:16]}, got {got[:16]}; "
                        f"run `timefs rebuild` to make the catalog again from the packs"
                    )

    def _tail(self, table: str, writer: int, covered: int) -> pa.Table | None:
        """What the packs say after a position, as rows of a table; nothing if there is nothing."""
        packs = self._index.ask(
            "SELECT writer, number, epoch, part, last, blocks, bytes, position FROM packs"
            " WHERE writer = ? AND position > ? ORDER BY number",
            writer,
            covered,
        )
        if not packs:
            return None
        if table == "packs":
            values = zip(PACKS.names, zip(*packs, strict=True), strict=True)
            return pa.Table.from_pydict({name: list(column) for name, column in values}, PACKS)
        make = _row_table if table == "rows" else _name_table
        statements = (
            (number, epoch_of(position), self._statement(writer, number))
            for _, number, *_, position in packs
        )
        return pa.concat_tables([make(writer, *statement) for statement in statements])

    def _statement(self, writer: int, number: int) -> Statement:
        return self._reader.statement(self._reader.footer(writer, number))

    def connect(self) -> duckdb.DuckDBPyConnection:
        """DuckDB with the views `rows`, `packs` and `names`, whole up to now.

        Raises:
            DamagedError: a Parquet file is not what was written.
        """
        self.verify()
        connection = duckdb.connect()
        for table, schema in SCHEMAS.items():
            tails = [schema.empty_table()]
            for state in self._index.writers():
                tail = self._tail(table, state.writer, self._covered(table, state.writer))
                tails += [tail] if tail is not None else []
            connection.register(f"{table}_tail", pa.concat_tables(tails))
            names = _listed(schema)
            parts = [f"SELECT {names} FROM {table}_tail"]  # noqa: S608  # our own names only
            files = [str(file) for file in self._files(table)]
            if files:
                listed = ", ".join("'" + file.replace("'", "''") + "'" for file in files)
                parts.append(f"SELECT {names} FROM read_parquet([{listed}])")  # noqa: S608
            connection.execute(f"CREATE VIEW {table} AS {' UNION ALL '.join(parts)}")
        return connection

    def log(self, machine: str | None = None) -> list[LogEntry]:
        """Every instant of a machine, or of all, oldest first."""
        with self.connect() as connection:
            rows = connection.execute(LOG, {"machine": machine}).fetchall()
        return [LogEntry(*row)._replace(fuzzy=bool(row[2])) for row in rows]

    def differences(self) -> Iterator[str]:
        """Where the tables contradict the packs, a line each."""
        for table, schema in SCHEMAS.items():
            truth = [schema.empty_table()]
            for state in self._index.writers():
                tail = self._tail(table, state.writer, 0)
                truth += [tail] if tail is not None else []
            with self.connect() as connection:
                connection.register("truth", pa.concat_tables(truth))
                names = _listed(schema)
                for first, second, what in (
                    ("truth", table, "lacks or changes"),
                    (table, "truth", "invents or changes"),
                ):
                    count = connection.execute(
                        f"SELECT count(*) FROM (SELECT {names} FROM {first} "  # noqa: S608
                        f"EXCEPT ALL SELECT {names} FROM {second})"
                    ).fetchone()
                    if count and count[0]:
                        yield (
                            f"catalog table {table}: it {what} {count[0]} rows of the packs; "
                            f"run `timefs rebuild`"
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
    del epoch
    named: list[tuple[int, int, int, str]] = (
        [(writer, 0, 0, statement.names[0])] if number <= 1 else []
    )
    for kind, _, file, at, _, sequence, *_ in statement.rows.tolist():
        if kind == RowKind.FILE:
            named.append((writer, file, sequence, statement.names[at]))
    columns = {name: [entry[at] for entry in named] for at, name in enumerate(NAMES.names)}
    return pa.Table.from_pydict(columns, NAMES)


def _listed(schema: pa.Schema) -> str:
    """The columns that tables and packs have in common, for a SELECT."""
    return ", ".join(f'"{name}"' for name in schema.names if name != "day")


def _day(time_ns: int) -> str:
    moment = dt.datetime.fromtimestamp(time_ns // 10**9, dt.UTC)
    return moment.date().isoformat()
