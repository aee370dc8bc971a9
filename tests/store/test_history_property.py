"""Histories made at random, against a plain list of byte arrays.

The machine below writes through transactions and through captures of real files, forgets all that
is derived at any moment, and reads anywhere in any order. What it reads must be what the list
says, and index and catalog made again must equal those that followed along.
"""

import os
import random
import shutil
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from store.catalog.catalog import SCHEMAS, Catalog
from store.clock import Clock
from store.description import create_repository
from store.history import FileKind
from store.image import ExtentKind
from store.index.index import Index
from store.index.proof import differing_tables
from store.index.run import PAGE_BYTES
from store.log.transaction import SealPolicy, Transaction
from store.repository import Repository
from timefs.recorder import NamedSource, Order, record, silent

MACHINE = "vm1"
CONTAINER = FileKind.CONTAINER
NAMES = ["a.img", "b.img", "été.img"]

sizes = st.one_of(
    st.integers(0, 30_000),
    st.integers(-5_000, 5_000).map(lambda shift: PAGE_BYTES + shift),
    st.sampled_from([0, 512, 4096, PAGE_BYTES, 2 * PAGE_BYTES + 100, 3 * PAGE_BYTES]),
)
offsets = st.one_of(
    st.integers(0, 30_000),
    st.integers(0, 60).map(lambda sector: sector * 512),
    st.integers(-5_000, 5_000).map(lambda shift: PAGE_BYTES + shift),
    st.integers(0, 3 * PAGE_BYTES),
)
lengths = st.one_of(st.just(512), st.integers(1, 20_000), st.integers(1, 6).map(lambda n: n * 4096))
seeds = st.integers(0, 6)
edits = st.one_of(
    st.tuples(st.just("write"), offsets, lengths, seeds),
    st.tuples(st.just("burst"), offsets, st.integers(20, 90), seeds),
    st.tuples(st.just("zero"), offsets, lengths, seeds),
    st.tuples(st.just("resize"), sizes, st.just(0), st.just(0)),
)
Edit = tuple[str, int, int, int]


def content(seed: int, length: int) -> bytes:
    """Few contents, so that blocks are found again; that of 0 is zeros."""
    return random.Random(seed).randbytes(length) if seed else bytes(length)


class SteppingClock(Clock):
    def __init__(self) -> None:
        self.time_ns = 1_700_000_000_000_000_000

    def now_ns(self) -> int:
        return self.time_ns


class Remembered(NamedTuple):
    """An instant as the plain list has it."""

    time_ns: int
    fuzzy: bool
    files: dict[str, bytes]


class HistoryMachine(RuleBasedStateMachine):
    """A repository beside the list of what was put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="timefs-history-"))
        self.sources = self.folder / "sources"
        self.sources.mkdir()
        create_repository(self.folder / "repo")
        self.clock = SteppingClock()
        self.files: dict[str, bytearray] = {}
        self.remembered: list[Remembered] = []
        self.seal = SealPolicy()
        self.open()

    def open(self) -> None:
        self.repository = Repository(
            self.folder / "repo", self.folder / "cache", self.clock, seal=self.seal
        )

    def teardown(self) -> None:
        try:
            if self.remembered:
                self.read_everything()
                self.made_again_is_equal()
        finally:
            self.repository.close()
            shutil.rmtree(self.folder)

    @initialize(blocks=st.sampled_from([3, 40, 8192]), rows=st.sampled_from([16, 1 << 17]))
    def choose_pack_size(self, blocks: int, rows: int) -> None:
        self.seal = SealPolicy(blocks, rows)
        self.repository.close()
        self.open()

    # Writing

    def remember(self, *, fuzzy: bool) -> None:
        files = {name: bytes(file) for name, file in self.files.items()}
        self.remembered.append(Remembered(self.clock.time_ns, fuzzy, files))

    def numbers(self) -> dict[str, int]:
        state = self.repository.logs.state(MACHINE)
        return {file.name: file.number for file in self.repository.logs.known_files(state)}

    @rule(
        changes=st.lists(st.tuples(st.sampled_from(NAMES), edits), max_size=5),
        drop=st.none() | st.sampled_from(NAMES),
        fuzzy=st.booleans(),
    )
    def transact(self, changes: list[tuple[str, Edit]], drop: str | None, fuzzy: bool) -> None:
        self.clock.time_ns += 1_500_000_000
        numbers = self.numbers()
        state = self.repository.logs.state(MACHINE)
        transaction = self.repository.logs.begin(state, self.clock.time_ns)
        if drop in self.files:
            transaction.drop(numbers[drop])
            del self.files[drop]
        for name, edit in changes:
            number = numbers.setdefault(name, max(numbers.values(), default=0) + 1)
            if name not in self.files:
                transaction.declare(number, name, CONTAINER)
                transaction.resize(number, 0)
                self.files[name] = bytearray()
            self.apply(transaction, number, self.files[name], edit)
        transaction.instant(self.clock.time_ns, fuzzy=fuzzy)
        transaction.commit()
        self.remember(fuzzy=fuzzy)

    def apply(self, target: Transaction | None, number: int, file: bytearray, edit: Edit) -> None:
        what, offset, length, seed = edit
        if what == "resize":
            old = len(file)
            file[offset:] = b""
            file.extend(bytes(max(0, offset - old)))
            if target is not None:
                target.resize(number, offset)
                target.zero(number, old, max(0, offset - old))
            return
        chosen = random.Random(f"{offset} {length}")
        count = length if what == "burst" else 1
        for _ in range(count):
            at = (offset + chosen.randrange(60) * 512 if what == "burst" else offset) % (
                len(file) + 1
            )
            piece = content(seed if what != "zero" else 0, 512 if what == "burst" else length)
            piece = piece[: len(file) - at]
            file[at : at + len(piece)] = piece
            if target is not None and what == "zero":
                target.zero(number, at, len(piece))
            elif target is not None:
                target.write(number, at, piece)

    @rule(
        changes=st.dictionaries(st.sampled_from(NAMES), st.lists(edits, max_size=4), min_size=1),
        drop=st.none() | st.sampled_from(NAMES),
    )
    def capture(self, changes: dict[str, list[Edit]], drop: str | None) -> None:
        self.clock.time_ns += 1_500_000_000
        dropped = [drop] if drop in self.files and drop not in changes else []
        for name in dropped:
            del self.files[name]
        for name, list_of_edits in changes.items():
            file = self.files.setdefault(name, bytearray())
            for edit in list_of_edits:
                self.apply(None, 0, file, edit)
            write_with_holes(self.sources / name, file)
        sources = [NamedSource(name, self.sources / name) for name in changes]
        done = record(self.repository, Order(MACHINE, sources, dropped), silent())
        assert done.fuzzy == []
        self.remember(fuzzy=False)

    @precondition(lambda self: self.files)
    @rule(which=st.integers(0, 2), serial=st.integers(0, 3))
    def rename(self, which: int, serial: int) -> None:
        numbers = self.numbers()
        old = sorted(self.files)[which % len(self.files)]
        new = os.fsdecode(b"renamed-\xff-%d.img" % serial)  # to the store a name is any bytes
        if new in numbers:
            return
        self.clock.time_ns += 1_500_000_000
        transaction = self.repository.logs.begin(
            self.repository.logs.state(MACHINE), self.clock.time_ns
        )
        transaction.declare(numbers[old], new, CONTAINER)
        transaction.instant(self.clock.time_ns, fuzzy=False)
        transaction.commit()
        self.files[new] = self.files.pop(old)
        self.remember(fuzzy=False)

    @rule(edits=st.lists(edits, max_size=5))
    def begin_and_give_up(self, edits: list[Edit]) -> None:
        """Packs of a transaction that never ends serve as duplicates and nothing else."""
        number = max(self.numbers().values(), default=0) + 1
        state = self.repository.logs.state(MACHINE)
        transaction = self.repository.logs.begin(state, self.clock.time_ns)
        transaction.declare(number, "given up", CONTAINER)
        file = bytearray(50_000)
        for edit in edits:
            self.apply(transaction, number, file, edit)
        transaction.abandon()

    # Forgetting

    @rule()
    def open_again(self) -> None:
        self.repository.close()
        self.open()

    @rule()
    def delete_cache(self) -> None:
        self.repository.close()
        shutil.rmtree(self.folder / "cache")
        self.open()

    @rule()
    def rebuild_index(self) -> None:
        self.repository.index.rebuild(self.repository.reader)

    @rule()
    def catalog_follows(self) -> None:
        self.repository.index.follow(self.repository.reader)
        self.catalog().follow()

    @rule()
    def delete_catalog(self) -> None:
        self.catalog().erase()

    def catalog(self, folder: str = "repo/catalog") -> Catalog:
        return Catalog(self.folder / folder, self.repository.index, self.repository.reader)

    # Reading

    @precondition(lambda self: self.remembered)
    @rule(which=st.integers(0, 1000), offset=offsets, length=lengths, backwards=st.booleans())
    def read_anywhere(self, which: int, offset: int, length: int, backwards: bool) -> None:
        expected = self.remembered[which % len(self.remembered)]
        instant = self.repository.history.at(MACHINE, expected.time_ns)
        assert (instant.time_ns, instant.fuzzy) == (expected.time_ns, expected.fuzzy)
        states = self.repository.history.files(instant)
        assert {s.name: s.size for s in states} == {n: len(f) for n, f in expected.files.items()}
        for state in reversed(states) if backwards else states:
            image = self.repository.history.open(instant, state)
            got = image.read(offset, length)
            assert got == expected.files[state.name][offset : offset + length]

    @invariant()
    def newest_instants_are_known(self) -> None:
        if not self.remembered:
            return
        times = [instant.time_ns for instant in self.repository.history.instants(MACHINE)]
        assert times == [instant.time_ns for instant in self.remembered]
        changed = {instant.time_ns for instant in self.repository.history.changed(MACHINE)}
        for before, after in pairwise([Remembered(0, False, {}), *self.remembered]):
            assert after.files == before.files or after.time_ns in changed
        consistent = [r.time_ns for r in self.remembered if not r.fuzzy] or times
        assert self.repository.history.latest(MACHINE).time_ns == consistent[-1]

    def read_everything(self) -> None:
        for expected in self.remembered:
            instant = self.repository.history.at(MACHINE, expected.time_ns)
            for state in self.repository.history.files(instant):
                image = self.repository.history.open(instant, state)
                file = expected.files[state.name]
                assert image.read(0, image.size + 1) == file
                at = 0
                for extent in image.extents(0, image.size):
                    assert extent.offset == at
                    at += extent.length
                    if extent.kind == ExtentKind.ZERO:
                        assert not any(file[extent.offset : at])
                assert at == len(file)

    def made_again_is_equal(self) -> None:
        index = self.repository.index
        index.follow(self.repository.reader)
        with tempfile.TemporaryDirectory() as folder:
            again = Index(Path(folder), bytes.fromhex(self.repository.id))
            again.follow(self.repository.reader)
            assert differing_tables(index, again) == []
            again.close()
        catalog = self.catalog()
        catalog.follow()
        assert list(catalog.differences()) == []
        fresh = self.catalog("fresh-catalog")
        fresh.follow()
        for table in SCHEMAS:
            assert content_of(fresh, table) == content_of(catalog, table)
        assert [entry.time_ns for entry in catalog.log(MACHINE)] == [
            instant.time_ns for instant in self.remembered
        ]
        fresh.erase()


def content_of(catalog: Catalog, table: str) -> list[Any]:
    with catalog.connect() as connection:
        return connection.execute(f"SELECT * FROM {table} ORDER BY ALL").fetchall()


def write_with_holes(path: Path, file: bytearray) -> None:
    """Blocks of zeros become holes."""
    with path.open("wb") as target:
        for at in range(0, len(file), 4096):
            block = file[at : at + 4096]
            if any(block):
                target.seek(at)
                target.write(block)
        target.truncate(len(file))


def test_any_history_reads_as_written_and_is_made_again_equal(soak: bool):
    chosen = settings(
        max_examples=400 if soak else 10,
        stateful_step_count=60 if soak else 18,
        derandomize=not soak,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        phases=[Phase.generate] if not soak else [Phase.generate, Phase.shrink],
        print_blob=True,
    )
    run_state_machine_as_test(HistoryMachine, settings=chosen)
