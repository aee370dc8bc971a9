"""Damage of every kind: right bytes or EIO, a line that names it, and all else stays readable."""

import json
import random
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blake3 import blake3

from store.catalog.catalog import Catalog, LogEntry
from store.description import create_repository
from store.errors import DamagedError
from store.format.pack import ENVELOPE, parse_envelope
from store.history import Instant
from store.index.database import connect
from store.index.pages import PageKey, stored_checksum
from store.index.run import RUN
from store.keep.check import Finding, Report, check
from store.log.transaction import SealPolicy
from store.repository import Repository, cache_name
from timefs.recorder import NamedSource, Order, record, silent

State = dict[tuple[str, int, str], bytes]
"""Bytes by machine, time and file."""


class Damaged(NamedTuple):
    """What a read of everything came to."""

    right: set[tuple[str, int, str]]
    failed: set[tuple[str, int, str]]
    """Where reading gave EIO."""


class History:
    """Two machines with a few instants, captured from real files into small packs."""

    def __init__(self, folder: Path) -> None:
        self.seal = SealPolicy(blocks=4)
        self.folder = folder
        self.root = folder / "repo"
        self.time_ns = 1_700_000_000_000_000_000
        self.files: dict[str, dict[str, bytes]] = {}
        self.states: State = {}
        create_repository(self.root)
        chosen = random.Random(7)
        self.capture("vm1", a=chosen.randbytes(40_000), b=chosen.randbytes(9_000) + bytes(9_000))
        self.capture("vm1", a=self.files["vm1"]["a"][:20_000] + chosen.randbytes(24_000))
        self.capture("vm2", c=chosen.randbytes(30_000))
        self.capture("vm1", b=chosen.randbytes(3_000) + self.files["vm1"]["b"][3_000:])

    def copy_to(self, folder: Path) -> "History":
        shutil.copytree(self.folder, folder)
        (cache,) = (folder / "cache").iterdir()
        cache.rename(cache.with_name(cache_name(folder / "repo", cache.name.partition("-")[0])))
        copy = object.__new__(History)
        copy.folder, copy.root, copy.time_ns = folder, folder / "repo", self.time_ns
        copy.files = {machine: dict(files) for machine, files in self.files.items()}
        copy.states = dict(self.states)
        copy.seal = self.seal
        return copy

    def open(self, cache: str = "cache") -> Repository:
        return Repository(self.root, self.folder / cache, seal=self.seal)

    def capture(self, machine: str, **files: bytes) -> None:
        sources: list[NamedSource] = []
        for name, content in files.items():
            path = self.folder / f"{machine}-{name}"
            path.write_bytes(content)
            sources.append(NamedSource(name, path))
        self.time_ns += 1_000_000_000
        repository = self.open()
        record(repository, Order(machine, sources, at_ns=self.time_ns), silent())
        repository.index.follow(repository.reader)
        self.catalog(repository).follow()
        repository.close()
        self.files.setdefault(machine, {}).update(files)
        for name, content in self.files[machine].items():
            self.states[machine, self.time_ns, name] = content

    def catalog(self, repository: Repository) -> Catalog:
        return Catalog(self.root / "catalog", repository.index, repository.reader)

    def pack(self, writer: int, number: int) -> Path:
        return self.root / f"packs/{writer:08x}/{number:010d}"

    def packs(self, writer: int = 1) -> list[Path]:
        return sorted((self.root / f"packs/{writer:08x}").iterdir())

    def read(self, cache: str = "cache") -> Damaged:
        """Read every file of every instant; wrong bytes fail the test here."""
        outcome = Damaged(set(), set())
        repository = self.open(cache)
        found: set[tuple[str, int, str]] = set()
        for machine in repository.history.machines():
            for instant in repository.history.instants(machine):
                found |= self._read(repository, instant, outcome)
        repository.close()
        for key in self.states.keys() - found:  # never silently absent
            outcome.failed.add(key)
        return outcome

    def _read(
        self, repository: Repository, instant: Instant, outcome: Damaged
    ) -> set[tuple[str, int, str]]:
        found: set[tuple[str, int, str]] = set()
        for state in repository.history.files(instant):
            key = (instant.machine, instant.time_ns, state.name)
            found.add(key)
            try:
                content = repository.history.open(instant, state).read(0, state.size)
            except DamagedError:  # EIO, and never another errno
                outcome.failed.add(key)
                continue
            assert content == self.states[key]
            outcome.right.add(key)
        return found

    def check(self, cache: str = "cache", *, deep: bool = True) -> Report:
        repository = self.open(cache)
        report = check(repository, deep=deep, progress=lambda _bytes: None)
        repository.close()
        return report


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> History:
    return History(tmp_path_factory.mktemp("template"))


@pytest.fixture
def history(template: History, tmp_path: Path) -> History:
    """A copy of the template; what is captured further goes into small packs too."""
    return template.copy_to(tmp_path / "history")


def hurt_by(findings: list[Finding]) -> set[tuple[str, str, str]]:
    """(machine, file, time) of everything that findings say is hurt."""
    hurt: set[tuple[str, str, str]] = set()
    for finding in findings:
        for line in finding.hurts:
            found = re.fullmatch(r"(\S+) (\S+): \d+ instants: (.*)", line)
            assert found is not None, line
            hurt.update((found[1], found[2], time) for time in found[3].split(", "))
    return hurt


def named(keys: set[tuple[str, int, str]]) -> set[tuple[str, str, str]]:
    return {
        (machine, name, f"{np.datetime64(time_ns // 10**9, 's')}Z")
        for machine, time_ns, name in keys
    }


def flip(path: Path, at: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << bit
    path.chmod(0o600)
    path.write_bytes(content)


def regions(content: bytes) -> dict[str, tuple[int, int]]:
    envelope = parse_envelope(content[: ENVELOPE.size], "")
    table, statement = envelope.table_bytes, envelope.statement_bytes
    lengths = {
        "first envelope": ENVELOPE.size,
        "frames": envelope.frames_bytes,
        "digests": envelope.digests_bytes,
        "first table": table,
        "first statement": statement,
        "second table": table,
        "second statement": statement,
        "last envelope": ENVELOPE.size,
    }
    found: dict[str, tuple[int, int]] = {}
    at = 0
    for name, length in lengths.items():
        found[name] = (at, at + length)
        at += length
    assert at == len(content)
    return found


def positions(start: int, end: int, soak: bool, step: int = 1) -> list[int]:
    return list(range(start, end, step)) if soak else [(start * 2 + end) // 3, end - 1]


# Bits


def test_a_flipped_bit_outside_the_frames_costs_nothing(history: History, soak: bool):
    number = 5
    path = history.pack(1, number)
    content = path.read_bytes()
    for name, (start, end) in regions(content).items():
        if name == "frames":
            continue
        for at in positions(start, end, soak):
            flip(path, at, at % 8)
            for cache in ("cache", "fresh"):
                assert history.read(cache).failed == set(), (name, at)
            report = history.check("fresh")
            assert not report.damaged, (name, at, report.findings)
            assert any(f"{number:010d}" in finding.message for finding in report.findings)
            path.write_bytes(content)
            shutil.rmtree(history.folder / "fresh")


def test_a_flipped_bit_in_a_frame_is_eio_and_check_names_what_it_hurts(
    history: History, soak: bool
):
    for number in (1, 2, 5):
        path = history.pack(1, number)
        content = path.read_bytes()
        start, end = regions(content)["frames"]
        for at in positions(start, end, soak, step=13):  # a frame is one checksum throughout
            flip(path, at, at % 8)
            outcome = history.read()
            assert outcome.failed
            assert {machine for machine, _, _ in outcome.failed} == {"vm1"}
            report = history.check()
            hurting = [finding for finding in report.findings if finding.damage]
            assert all(f"00000001/{number:010d}" in finding.message for finding in hurting)
            assert hurt_by(hurting) == named(outcome.failed)
            path.write_bytes(content)
    assert history.read().failed == set()
    assert history.check().findings == []


def test_a_shallow_check_passes_frames_and_a_deep_one_does_not(history: History):
    flip(history.pack(1, 1), ENVELOPE.size + 10, 0)
    assert not history.check(deep=False).damaged
    assert history.check(deep=True).damaged


def test_both_copies_of_a_part_damaged_is_a_lost_pack(history: History):
    path = history.pack(1, 2)
    found = regions(path.read_bytes())
    flip(path, found["first statement"][0], 0)
    flip(path, found["second statement"][0], 0)
    for cache in ("cache", "fresh"):
        failed = history.read(cache).failed
        assert {machine for machine, _, _ in failed} <= {"vm1"}
        report = history.check(cache)
        assert report.damaged
        assert any("both copies" in finding.message for finding in report.findings)
        assert hurt_by(report.findings) >= named(failed)


# Packs


def cut_to_nothing(path: Path) -> None:
    path.write_bytes(b"")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def other_pack(path: Path) -> None:
    path.write_bytes(path.with_name(f"{int(path.name) - 1:010d}").read_bytes())


def other_writer(path: Path) -> None:
    path.write_bytes((path.parent.parent / "00000002" / path.name).read_bytes())


@pytest.mark.parametrize(
    ("damage", "number"),
    [
        (Path.unlink, 0),
        (Path.unlink, 1),
        (Path.unlink, 3),
        (cut_to_nothing, 0),
        (cut_to_nothing, 2),
        (cut_to_nothing, 5),
        (truncate, 3),
        (lengthen, 1),
        (other_pack, 5),
        (other_writer, 1),
    ],
)
def test_a_pack_gone_wrong_in_the_middle_is_said_and_later_captures_heal(
    history: History, damage: Callable[[Path], None], number: int
):
    path = history.pack(1, number)
    assert history.packs()[-1] != path
    whole = path.read_bytes()
    damage(path)
    for cache in ("cache", "fresh"):
        outcome = history.read(cache)
        assert {machine for machine, _, _ in outcome.failed} <= {"vm1"}
        assert bool(outcome.failed) == (number > 0), cache
        report = history.check(cache)
        said = [finding.message for finding in report.findings if finding.damage]
        assert any(f"00000001/{number:010d}" in message for message in said)
        assert hurt_by(report.findings) >= named(outcome.failed)

    if damage is other_writer:  # of the same size, so that only a look inside tells
        repository = history.open()
        repository.index.rebuild(repository.reader)
        repository.close()
    history.capture("vm1", **history.files["vm1"])
    newest = {("vm1", history.time_ns, name) for name in ("a", "b")}
    for cache in ("cache", "fresh", "another"):
        assert newest <= history.read(cache).right
    if number:
        assert not hurt_by(history.check().findings) & named(newest)

    path.write_bytes(whole)
    repository = history.open()
    repository.index.rebuild(repository.reader)
    history.catalog(repository).rebuild()
    repository.close()
    assert history.read().failed == set()
    assert history.check().findings == []


def test_a_newest_pack_put_back_meets_no_other_of_its_epoch(history: History):
    """Its transaction is unknown meanwhile: even its very time may have been used again."""
    history.capture("vm1", a=b"in one pack")
    path = history.packs()[-1]
    whole = path.read_bytes()
    path.write_bytes(b"")
    history.time_ns -= 1_000_000_000
    history.capture("vm1", a=b"at the same time")
    assert history.packs()[-1] != path
    path.write_bytes(whole)
    shutil.rmtree(history.folder / "cache")
    assert history.read().failed == set()
    repository = history.open()
    assert list(repository.index.ask("SELECT * FROM lost")) == []
    repository.close()


def test_a_machine_that_shares_blocks_with_a_lost_pack_heals_too(history: History):
    history.seal = SealPolicy(blocks=200)
    shared = random.Random(1).randbytes(800_000)
    history.capture("vm1", big=shared)
    history.capture("vm2", c=shared)
    for path in history.packs()[1:]:
        path.write_bytes(b"")
    assert ("vm2", history.time_ns, "c") in history.read().failed
    history.capture("vm2", c=shared)
    assert ("vm2", history.time_ns, "c") in history.read().right


@pytest.mark.parametrize("how", [Path.unlink, cut_to_nothing])
def test_a_pack_that_goes_while_it_is_being_read_is_eio_and_not_enoent(
    history: History, how: Callable[[Path], None]
):
    repository = history.open()
    instant = repository.history.latest("vm1")
    state = repository.history.files(instant)[0]
    image = repository.history.open(instant, state)
    assert image.read(0, 1)
    for path in history.packs():
        how(path)
    for read in (
        lambda: image.read(0, state.size),
        lambda: repository.reader.digests(1, 1, 0, 1),
        lambda: repository.reader.all_digests(1, 2),
    ):
        try:  # what is open may still be readable
            assert read()
        except DamagedError as error:
            assert "missing" in str(error) or "expected" in str(error)  # noqa: PT017
    repository.close()


# The index


Runs = np.ndarray[tuple[int], np.dtype[np.void]]


def pages(history: History) -> dict[PageKey, Runs]:
    (path,) = (history.folder / "cache").glob("*/index.sqlite")
    with closing(connect(path)) as connection:
        rows = connection.rows("SELECT writer, file, page, position, runs FROM pages")
    return {PageKey(*key): np.frombuffer(runs, RUN).copy() for *key, runs in rows}


def put_page(history: History, key: PageKey, runs: Runs, right: bool) -> None:
    (path,) = (history.folder / "cache").glob("*/index.sqlite")
    blob = runs.tobytes()
    where = "WHERE writer = ? AND file = ? AND page = ? AND position = ?"
    with closing(connect(path)) as connection:
        connection.change(f"UPDATE pages SET runs = ? {where}", blob, *key)
        if right:
            expected = stored_checksum(key, blob)
            connection.change(f"UPDATE pages SET checksum = ? {where}", expected, *key)


@pytest.mark.parametrize("right_checksum", [False, True])
def test_two_places_swapped_in_the_index_are_noticed_by_reads_and_check(
    history: History, right_checksum: bool
):
    history.check()
    runs = {key: runs for key, runs in pages(history).items() if runs["writer"][0] > 0}
    (first, first_runs), (second, second_runs) = list(runs.items())[:2]
    for field in ("writer", "number", "slot"):
        first_runs[field][0], second_runs[field][0] = second_runs[field][0], first_runs[field][0]
    put_page(history, first, first_runs, right_checksum)
    put_page(history, second, second_runs, right_checksum)
    assert history.read().failed
    for deep in (False, True):
        report = history.check(deep=deep)
        assert report.damaged
        assert any("index" in finding.message for finding in report.findings)
    repository = history.open()
    repository.index.rebuild(repository.reader)
    repository.close()
    assert history.read().failed == set()
    assert history.check().findings == []


def test_two_whole_pages_swapped_in_the_index_are_noticed(history: History):
    """Each is right in itself, with its checksum, but not where it is."""
    history.check()
    (first, first_runs), (second, second_runs) = list(pages(history).items())[:2]
    (path,) = (history.folder / "cache").glob("*/index.sqlite")
    swap = "UPDATE pages SET runs = ?, checksum = ? WHERE position = ? AND file = ? AND writer = ?"
    with closing(connect(path)) as connection:
        for key, other, runs in ((first, second, second_runs), (second, first, first_runs)):
            blob = runs.tobytes()
            values = (blob, stored_checksum(other, blob), key.position, key.file, key.writer)
            connection.change(swap, *values)
    assert history.read().failed
    assert history.check(deep=False).damaged


@pytest.mark.parametrize("field", ["length", "skip", "row_length", "slot", "number", "writer"])
def test_a_wrong_place_in_a_run_never_reads_as_other_bytes(history: History, field: str):
    for key, runs in list(pages(history).items())[:4]:
        for change in (1, 512, 4096):
            wrong = runs.copy()
            wrong[field][-1] += change
            put_page(history, key, wrong, right=True)
            history.read()  # compares every byte that is had
        put_page(history, key, runs, right=True)


# The catalog


def parquet_files(history: History, table: str = "rows") -> list[Path]:
    return sorted((history.root / "catalog" / table).rglob("*.parquet"))


def answers(history: History) -> list[LogEntry]:
    repository = history.open()
    found = history.catalog(repository).log()
    repository.close()
    return found


def answers_or_damage(history: History) -> list[LogEntry] | None:
    try:
        return answers(history)
    except DamagedError:
        return None


def follow(history: History) -> None:
    repository = history.open()
    history.catalog(repository).follow()
    repository.close()


@pytest.mark.parametrize("right_checksum", [False, True])
def test_two_places_swapped_in_the_catalog_are_noticed(history: History, right_checksum: bool):
    path = max(parquet_files(history), key=lambda path: path.stat().st_size)
    with pq.ParquetFile(path) as parquet:
        table = parquet.read_row_group(0)  # pyright: ignore[reportUnknownMemberType]
    slots: list[Any] = table["slot"].to_pylist()
    first, second = slots.index(0), next(at for at, slot in enumerate(slots) if slot)
    slots[first], slots[second] = slots[second], slots[first]
    changed = table.set_column(table.schema.get_field_index("slot"), "slot", pa.array(slots))
    with pq.ParquetWriter(path, changed.schema) as parquet:
        parquet.write_table(changed)
    if right_checksum:
        checksum = blake3(path.read_bytes()).hexdigest(16)
        renamed = path.with_name(re.sub(r"[0-9a-f]{32}", checksum, path.name))
        path.rename(renamed)
        for entry in (history.root / "catalog/rows/_delta_log").glob("*.json"):
            entry.write_text(entry.read_text().replace(path.name, renamed.name))
    else:
        with pytest.raises(DamagedError, match="checksum"):
            answers(history)
    report = history.check(deep=False)
    assert report.damaged
    assert any("catalog" in finding.message for finding in report.findings)


def empty_newest_log_entry(folder: Path) -> None:
    max((folder / "_delta_log").glob("*.json")).write_bytes(b"")


def empty_middle_log_entry(folder: Path) -> None:
    sorted((folder / "_delta_log").glob("*.json"))[2].write_bytes(b"")


def delete_middle_log_entry(folder: Path) -> None:
    sorted((folder / "_delta_log").glob("*.json"))[2].unlink()


def garble_log_entry(folder: Path) -> None:
    sorted((folder / "_delta_log").glob("*.json"))[1].write_text('{"add":')


def delete_log(folder: Path) -> None:
    shutil.rmtree(folder / "_delta_log")


def delete_parquet(folder: Path) -> None:
    min(folder.rglob("*.parquet")).unlink()


def empty_parquet(folder: Path) -> None:
    max(folder.rglob("*.parquet")).write_bytes(b"")


def swap_parquet(folder: Path) -> None:
    first, second = sorted(folder.rglob("*.parquet"))[:2]
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "table"),
    [
        (shutil.rmtree, "rows"),
        (shutil.rmtree, "names"),
        (empty_newest_log_entry, "rows"),
        (empty_newest_log_entry, "packs"),
        (empty_middle_log_entry, "names"),
        (empty_middle_log_entry, "rows"),
        (delete_middle_log_entry, "packs"),
        (garble_log_entry, "rows"),
        (delete_log, "names"),
        (delete_parquet, "packs"),
        (empty_parquet, "rows"),
        (swap_parquet, "rows"),
    ],
)
def test_a_damaged_catalog_answers_right_or_says_so_and_is_made_again(
    history: History, damage: Callable[[Path], None], table: str
):
    expected = answers(history)
    assert len(expected) == 4
    damage(history.root / "catalog" / table)
    for _ in range(2):
        if answers_or_damage(history) != expected:
            assert history.check(deep=False).damaged
        follow(history)
    repository = history.open()
    history.catalog(repository).rebuild()
    repository.close()
    assert answers(history) == expected
    assert history.check().findings == []


def test_a_deleted_catalog_is_made_again_by_the_next_capture(history: History):
    expected = answers(history)
    shutil.rmtree(history.root / "catalog")
    assert answers(history) == expected
    history.capture("vm2", c=b"new")
    assert answers(history)[:-1] == expected
    assert parquet_files(history)
    assert history.check().findings == []


# The description


def test_a_damaged_description_is_said(history: History):
    path = history.root / "repository.json"
    fields = json.loads(path.read_text())
    path.write_text("{")
    with pytest.raises(DamagedError, match="put the file back"):
        history.open()
    del fields["key"]
    path.write_text(json.dumps(fields))
    with pytest.raises(DamagedError, match="put the file back"):
        history.open()
