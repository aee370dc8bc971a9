"""One Delta table of the catalog: Parquet files whose names say what they cover and prove it.

Defined here and only here: how a file is named, written and committed. A name holds the writer, the
range of its pack numbers that the file covers and the checksum of its bytes, so that a torn log, a
missing file or a changed one is noticed when the table is read. Used by the catalog. Safe between
processes: two that cover the same packs meet in Delta's commit, and one of them wins.
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from store.errors import DamagedError, FullError, TimefsError
from store.objects.backend import sync_folder

LOG: Final = "_delta_log"

_NAME: Final = re.compile(r"([0-9a-f]{8})-(\d{10})-(\d{10})-([0-9a-f]{32})\.parquet")


class CatalogFile(NamedTuple):
    """A Parquet file of a table."""

    path: Path
    writer: int
    first: int
    """First pack number that the file's commit covers."""
    end: int
    """Last + 1."""
    checksum: str


class CatalogTable:
    """A table as one commit shows it."""

    def __init__(self, folder: Path, schema: pa.Schema, partition: str | None) -> None:
        self._folder = folder
        self._schema = schema
        self._partition = partition
        try:
            self._delta: DeltaTable | None = DeltaTable(str(folder))
            uris = self._delta.file_uris()
        except TableNotFoundError:
            self._delta, uris = None, []
        except (DeltaError, OSError) as error:
            if any(path.stat().st_size for path in (folder / LOG).glob("*.json")):
                raise self.damaged(error) from error
            self._delta, uris = None, []  # a power cut came before its first commit was durable
        self.files = sorted(self._parse(uri) for uri in uris)
        self._ends = self._chain()

    def damaged(self, error: object) -> DamagedError:
        """What is wrong with the table, on one line."""
        lines = str(error).splitlines()
        text = lines[0][:200] if lines else "unreadable"
        return DamagedError(
            f"catalog {self._folder}: {text}; run `timefs rebuild` to make it again from the packs"
        )

    def _parse(self, uri: str) -> CatalogFile:
        path = Path(unquote(uri.removeprefix("file://")))
        found = _NAME.fullmatch(path.name)
        if found is None:
            raise self.damaged(f"{path.name}: not a name that timefs gives")
        writer, first, end, checksum = found.groups()
        return CatalogFile(path, int(writer, 16), int(first), int(end), checksum)

    def _chain(self) -> dict[int, int]:
        """Up to which pack number each writer is covered, without gaps."""
        ends: dict[int, int] = {}
        for writer, first, end in sorted({(f.writer, f.first, f.end) for f in self.files}):
            if first != ends.get(writer, 0):
                end_before = ends.get(writer, 0)
                raise self.damaged(f"writer {writer}: expected pack {end_before}, got {first}")
            ends[writer] = end
        return ends

    def covered(self, writer: int) -> int:
        """The first pack number of a writer that the table does not cover."""
        return self._ends.get(writer, 0)

    def append(self, writer: int, end: int, content: pa.Table) -> bool:
        """Cover the writer's packs up to a number; answer whether nobody else did meanwhile.

        Raises:
            TimefsError: the table cannot be written.
        """
        partition = [self._partition] if self._partition else []
        try:
            if self._delta is None:
                self._delta = DeltaTable.create(
                    str(self._folder), self._schema, mode="error", partition_by=partition
                )
            actions: list[AddAction | RemoveAction] = [
                self._write(writer, end, part, values) for part, values in self._parts(content)
            ]
            properties = CommitProperties(app_transactions=[Transaction(f"{writer:08x}", end)])
            self._delta.create_write_transaction(
                actions, "append", self._schema, partition, commit_properties=properties
            )
            self._make_durable()
        except CommitFailedError:
            return False
        except DeltaError as error:
            if "already exists" in str(error):
                return False
            raise self.damaged(error) from error
        except OSError as error:
            kind = FullError if "space" in str(error) else TimefsError
            raise kind(f"catalog {self._folder}: {error}") from error
        return True

    def _parts(self, content: pa.Table) -> Iterator[tuple[pa.Table, Mapping[str, str]]]:
        """The rows of each partition, without the columns that the partition's name holds."""
        column = self._partition
        if column is None:
            yield content, {}
            return
        values: list[Any] = content[column].to_pylist()
        rest = content.drop_columns([column])
        for value in sorted(set(values)):
            yield rest.filter(pa.array([own == value for own in values])), {column: value}

    def _write(
        self, writer: int, end: int, content: pa.Table, values: Mapping[str, str]
    ) -> AddAction:
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, content.schema, compression="zstd") as parquet:
            parquet.write_table(content)
        stored = sink.getvalue().to_pybytes()
        checksum = blake3(stored).hexdigest(16)
        place = Path(*(f"{name}={value}" for name, value in values.items()))
        name = place / f"{writer:08x}-{self.covered(writer):010d}-{end:010d}-{checksum}.parquet"
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:  # durable before Delta's log names it
            file.write(stored)
            file.flush()
            os.fdatasync(file.fileno())
        for folder in (path.parent, self._folder):
            sync_folder(folder)
        return AddAction(
            path=str(name),
            size=len(stored),
            partition_values=dict(values),
            modification_time=path.stat().st_mtime_ns // 1_000_000,
            data_change=True,
            stats=json.dumps({"numRecords": content.num_rows}),
        )

    def _make_durable(self) -> None:
        """Delta makes nothing durable: so that a power cut costs the newest entry at most."""
        log = self._folder / LOG
        checkpoints = sorted(log.glob("*.checkpoint.parquet"))[-1:]
        entries = sorted(log.glob("*.json"))[-2:]  # the first commit of a table is two entries
        for path in [*checkpoints, *entries]:
            with path.open("rb") as file:
                os.fdatasync(file.fileno())
        sync_folder(log)

    def sweep(self) -> None:
        """Remove what writers that were killed left; the caller is the catalog's only writer."""
        if self._delta is None:
            erase_table(self._folder)
            return
        known = {file.path for file in self.files}
        for path in self._folder.rglob("*"):
            orphan = path.suffix == ".parquet" and path.parent.name != LOG and path not in known
            if orphan or "#" in path.name:
                path.unlink(missing_ok=True)

    def verify(self) -> None:
        """Prove that the Parquet files are those that were written.

        Raises:
            DamagedError: one is not.
        """
        for file in self.files:
            try:
                got = blake3(file.path.read_bytes()).hexdigest(16)
            except FileNotFoundError as error:
                raise self.damaged(f"{file.path.name}: missing") from error
            if got != file.checksum:
                raise self.damaged(
                    f"{file.path.name}: checksum: expected {file.checksum}, got {got}"
                )


def erase_table(folder: Path) -> None:
    """Take a table away, its log first: without one it is no table, however far this comes."""
    if (folder / LOG).exists():
        shutil.rmtree(folder / f"{LOG}.old", ignore_errors=True)
        (folder / LOG).rename(folder / f"{LOG}.old")
    shutil.rmtree(folder, ignore_errors=True)
