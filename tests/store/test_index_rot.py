"""Bits that rot in the index's files: right answers or a clear error, never an older state."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from store.errors import DamagedError
from store.index import index as index_module
from store.index.database import (
    FRAME_BYTES,
    LOG_HEADER,
    SQLITE_PAGE_BYTES,
    Connection,
    Sums,
    connect,
    log_sums,
)
from store.keep.check import check
from store.repository import Repository
from tests.store.test_index import CONTENTS, contents, dump, index_file, repository

__all__ = ["repository"]

FOLLOW_AND_DIE = """
import os, sys
from pathlib import Path
from store.repository import Repository
repository = Repository(Path(sys.argv[1]), Path(sys.argv[2]))
repository.index.follow(repository.reader)
os.kill(os.getpid(), 9)
"""


class Copies:
    """The repository's index, put anew into a cache folder of its own as often as wanted."""

    def __init__(self, repository: Repository, folder: Path) -> None:
        self._repository = repository
        self._folder = folder
        self.file = folder / repository.cache.name / "index.sqlite"
        self.log = self.file.with_name("index.sqlite-wal")

    def put(self, database: bytes, log: bytes | None = None) -> Repository:
        shutil.rmtree(self._folder, ignore_errors=True)
        self.file.parent.mkdir(parents=True)
        self.file.write_bytes(database)
        if log is not None:
            self.log.write_bytes(log)
        return Repository(self._repository.root, self._folder)


def silent(_bytes: int) -> None:
    """For progress that nobody looks at."""


def flipped(whole: bytes, at: int) -> bytes:
    damaged = bytearray(whole)
    damaged[at] ^= 1 << at % 8
    return bytes(damaged)


def reads_right_or_says_damaged(again: Repository) -> bool:
    """Whether everything was read; all that was read was right."""
    try:
        assert contents(again) == CONTENTS
    except DamagedError:
        return False
    return True


def noticed(again: Repository, caplog: pytest.LogCaptureFixture) -> bool:
    """Whether opening it said damage and made it again, or else a check says damage."""
    return "making it again" in caplog.text or check(again, deep=False, progress=silent).damaged


def test_a_flipped_bit_anywhere_is_noticed_by_reads_and_check_and_mended_by_a_rebuild(
    repository: Repository, tmp_path: Path, soak: bool, caplog: pytest.LogCaptureFixture
):
    expected = dump(repository)
    repository.close()
    whole = index_file(repository).read_bytes()
    with closing(connect(index_file(repository))) as connection:
        assert connection.row("PRAGMA freelist_count") == (0,), "every page is of some use"
    copies = Copies(repository, tmp_path / "copies")
    for at in range(0, len(whole), 13 if soak else 1777):
        caplog.clear()
        again = copies.put(flipped(whole, at))
        reads_right_or_says_damaged(again)
        assert noticed(again, caplog), at
        again.index.rebuild(again.reader)
        assert contents(again) == CONTENTS
        assert dump(again) == expected
        assert not check(again, deep=False, progress=silent).findings
        again.close()


def test_two_of_its_pages_swapped_are_noticed(
    repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    repository.close()
    whole = index_file(repository).read_bytes()
    copies = Copies(repository, tmp_path / "copies")
    pages = range(SQLITE_PAGE_BYTES, len(whole) - SQLITE_PAGE_BYTES, SQLITE_PAGE_BYTES)
    for first in pages:
        second = first + SQLITE_PAGE_BYTES
        swapped = bytearray(whole)
        swapped[first:second] = whole[second : second + SQLITE_PAGE_BYTES]
        swapped[second : second + SQLITE_PAGE_BYTES] = whole[first:second]
        caplog.clear()
        again = copies.put(bytes(swapped))
        reads_right_or_says_damaged(again)
        assert noticed(again, caplog)
        again.close()


def test_a_check_goes_on_with_a_fresh_index_when_the_index_is_damaged(
    repository: Repository, tmp_path: Path
):
    repository.close()
    whole = index_file(repository).read_bytes()
    again = Copies(repository, tmp_path / "copies").put(flipped(whole, len(whole) - 99))
    report = check(again, deep=True, progress=silent)
    assert len(report.findings) == 1
    assert "wrong checksum; run `timefs rebuild`" in report.findings[0].message
    assert report.packs == len(CONTENTS) + 1
    again.close()


def left_log(repository: Repository) -> tuple[bytes, bytes]:
    """The database and the log that a process leaves which is killed after it followed."""
    repository.index.rebuild(repository.reader)
    repository.close()
    program = [sys.executable, "-c", FOLLOW_AND_DIE]
    places = [str(repository.root), str(repository.cache.parent)]
    shutil.rmtree(repository.cache)
    root = Path(__file__).parents[2]
    done = subprocess.run([*program, *places], cwd=root, timeout=60, check=False)
    assert done.returncode == -9
    log = index_file(repository).with_name("index.sqlite-wal").read_bytes()
    assert len(log) > 20 * FRAME_BYTES
    return index_file(repository).read_bytes(), log


def test_a_flipped_bit_in_a_log_that_was_left_is_noticed_or_costs_nothing(
    repository: Repository, tmp_path: Path, soak: bool
):
    expected = dump(repository)
    database, log = left_log(repository)
    copies = Copies(repository, tmp_path / "copies")
    for at in range(0, len(log), 53 if soak else 6007):
        again = copies.put(database, flipped(log, at))
        assert reads_right_or_says_damaged(again), at
        assert dump(again) == expected
        again.close()


def test_a_log_that_was_left_is_taken_over(
    repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    database, log = left_log(repository)
    again = Copies(repository, tmp_path / "copies").put(database, log)
    assert contents(again) == CONTENTS
    again.close()
    assert caplog.text == ""


def test_a_log_that_ends_in_a_torn_transaction_is_taken_over_up_to_there(
    repository: Repository, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    database, log = left_log(repository)
    copies = Copies(repository, tmp_path / "copies")
    last = (len(log) - LOG_HEADER.size) // FRAME_BYTES - 1
    for end in range(last * FRAME_BYTES, len(log) - 1, 997):
        again = copies.put(database, log[:end])
        assert contents(again) == CONTENTS
        again.close()
    assert caplog.text == ""


def test_a_flipped_bit_in_the_log_of_a_living_writer_is_noticed(
    repository: Repository, tmp_path: Path, soak: bool
):
    database = index_file(repository).read_bytes()
    copies = Copies(repository, tmp_path / "copies")
    writer = copies.put(b"")
    writer.index.follow(writer.reader)
    whole = copies.log.read_bytes()
    assert len(whole) > len(database) // 2
    noticed = 0
    for at in range(LOG_HEADER.size, len(whole), 211 if soak else 9001):
        with copies.log.open("r+b") as file:
            file.seek(at)
            file.write(flipped(whole, at)[at : at + 1])
        reader = Repository(repository.root, copies.file.parents[1])
        noticed += not reads_right_or_says_damaged(reader)
        reader.close()
        copies.log.write_bytes(whole)
    assert noticed
    assert contents(writer) == CONTENTS
    writer.close()


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    with closing(connect(tmp_path / "t.sqlite")) as connection:
        connection.change("CREATE TABLE t (a INTEGER PRIMARY KEY, b BLOB)")
        connection.change("PRAGMA cache_size = 10")
        yield connection


def test_pages_that_a_transaction_writes_twice_to_the_log_are_believed(connection: Connection):
    """Their checksums come at the end of the transaction; until then it may read them again."""
    connection.change("BEGIN")
    for number in range(3000):
        key = number * 7919 % 1000
        value = number.to_bytes(2, "big") * 700
        connection.change("INSERT OR REPLACE INTO t VALUES (?, ?)", key, value)
        assert connection.row("SELECT b FROM t WHERE a = ?", key) == (value,)
    before = connection.rows("SELECT * FROM t")
    connection.change("COMMIT")
    assert connection.rows("SELECT * FROM t") == before
    assert connection.row("PRAGMA integrity_check") == ("ok",)


def test_what_a_rolled_back_transaction_left_in_the_log_is_no_damage(
    connection: Connection, tmp_path: Path
):
    connection.change("INSERT INTO t VALUES (0, 'kept')")
    connection.change("BEGIN")
    for key in range(1, 1000):
        connection.change("INSERT INTO t VALUES (?, ?)", key, os.urandom(1000))
    connection.change("ROLLBACK")
    connection.change("INSERT INTO t VALUES (1, 'kept')")
    for suffix in ("", "-wal"):  # as if the writer had been killed now
        left = (tmp_path / f"t.sqlite{suffix}").read_bytes()
        (tmp_path / f"left.sqlite{suffix}").write_bytes(left)
    with closing(connect(tmp_path / "left.sqlite")) as again:
        assert again.rows("SELECT * FROM t") == [(0, "kept"), (1, "kept")]


def test_the_log_sums_are_those_of_sqlite(connection: Connection, tmp_path: Path):
    connection.change("INSERT INTO t VALUES (1, 'one')")
    log = (tmp_path / "t.sqlite-wal").read_bytes()
    header = LOG_HEADER.unpack_from(log)
    assert log_sums(Sums(0, 0), log[:24]) == header[6:]


def test_a_database_without_checksums_is_no_index(tmp_path: Path):
    plain = apsw.Connection(str(tmp_path / "plain.sqlite"))
    plain.execute("CREATE TABLE t (a)")  # pyright: ignore[reportUnknownMemberType]
    plain.close()
    with pytest.raises(apsw.NotADBError, match="no checksums"):
        connect(tmp_path / "plain.sqlite")


def test_the_index_is_read_through_once_after_a_reboot(
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    repository.close()
    whole = index_file(repository).read_bytes()
    monkeypatch.setattr(index_module, "boot_id", lambda: "another run of the system")
    again = Copies(repository, tmp_path / "copies").put(flipped(whole, len(whole) - 99))
    assert "wrong checksum; making it again" in caplog.text
    assert contents(again) == CONTENTS
    again.close()
