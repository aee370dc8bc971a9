"""Check: is everything that was stored still there and right, and if not, what does it hurt.

Defined here and only here: the walk over packs, rows, index and catalog, and the search for the
files and instants that damage reaches. Used by `timefs check`. Changes nothing; one thread.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from blake3 import blake3

from store.catalog.catalog import Catalog
from store.errors import DamagedError, ForkedError, TimefsError
from store.format.limits import WRITER_MAX, WRITER_MIN
from store.format.pack import pack_name
from store.format.row import BLOCK_BYTES, DIGEST_BYTES, RowKind, blocks_of, position
from store.format.statement import PackReference
from store.history import FileState, Instant
from store.index.index import Index, WriterState
from store.index.packs import lost_packs
from store.index.pages import parse_page
from store.index.proof import StoredPage, differing_tables, files_of, stored_pages
from store.index.run import LOST_WRITER, PAGE_BYTES, RUN, Run, Runs
from store.packs.reader import Footer, frame_table
from store.repository import Repository

LINE_BYTES: Final = 8
"""Enough to tell lines apart by eye."""


class Finding(NamedTuple):
    """Something that is not as it should be."""

    damage: bool
    """Whether bytes or answers are lost; else a second copy still has them."""
    message: str
    hurts: list[str]
    """Files with the instants at which they cannot be read whole, a line each."""


class Report(NamedTuple):
    """What a check came to."""

    packs: int
    rows: int
    checked_bytes: int
    """Stored bytes that were read."""
    findings: list[Finding]
    line: str
    """Which history the repository holds: equal where all machines' newest packs are, which name
    all before them."""

    @property
    def damaged(self) -> bool:
        """Whether anything is lost."""
        return any(finding.damage for finding in self.findings)


class BadSlots(NamedTuple):
    """Slots that cannot be read."""

    writer: int
    number: int
    first: int
    end: int


class Check:
    """One walk over a repository."""

    def __init__(
        self, repository: Repository, *, deep: bool, progress: Callable[[int], None]
    ) -> None:
        self._repository = repository
        self._reader = repository.reader
        self._index = repository.index
        self._deep = deep
        self._progress = progress
        self._findings: list[Finding] = []
        self._bad: set[PackReference] = set()
        self._stopped: set[int] = set()
        """Writers whose packs do not continue what is known of them."""
        self._packs = 0
        self._rows = 0
        self._bytes = 0

    def run(self) -> Report:
        self._index.follow(self._reader)
        with self._index.snapshot():  # captures may go on meanwhile
            self._check_lines()
            self._check_packs()
            self._check_index()
            line = self._line()
        if not self._bad and not self._stopped:  # else there is no truth to compare with
            self._check_catalog()
            if self._deep:
                self._compare_rebuilt()
        return Report(self._packs, self._rows, self._bytes, self._findings, line)

    def _line(self) -> str:
        heads = blake3()
        for state in sorted(self._index.writers()):
            heads.update(self._index.head(state.writer).fingerprint)
        return heads.hexdigest(length=LINE_BYTES)

    def _check_lines(self) -> None:
        """Writers that are not followed any more, and those that claim another's machine."""
        for name in self._repository.backend.strays():
            text = f"{name}: no pack of ours; it is passed over, nothing is lost"
            self._findings.append(Finding(False, text, []))
        for writer in self._repository.backend.writers():
            if not WRITER_MIN <= writer <= WRITER_MAX:
                self._find(f"packs/{writer:08x}: no machine has that number; move it away")
        owners: dict[str, int] = {}
        for state in sorted(self._index.writers()):
            stop = self._index.stop(state.writer)
            if stop is not None:
                self._stopped.add(state.writer)
                self._find(f"{state.machine}: {stop}")
            owner = owners.setdefault(state.machine, state.writer)
            if owner != state.writer:
                self._find(
                    f"{state.machine}: writer {state.writer:08x} claims this machine, which is "
                    f"writer {owner:08x}'s; nothing of it is shown; move its packs away"
                )

    def _check_packs(self) -> None:
        footers = [
            PackReference(state.writer, number)
            for state in self._index.writers()
            if not isinstance(self._index.stop(state.writer), ForkedError)
            for number in self._expected(state)
        ]
        for pack in footers:
            self._check_footer(pack)
        for pack in footers:
            if pack not in self._bad:
                self._check_content(pack)

    def _find(self, message: str, bad: BadSlots | None = None) -> None:
        hurts = list(hurt(self._repository, bad)) if bad else []
        self._findings.append(Finding(True, message, hurts))

    def _expected(self, state: WriterState) -> range:
        if state.writer in self._stopped:
            return range(state.next_number)
        there = self._repository.backend.list(state.writer)
        return range(max([state.next_number - 1, *there]) + 1)

    def _check_footer(self, pack: PackReference) -> None:
        try:
            footer = self._reader.footer(*pack)
            frame_table(footer)
            self._reader.statement(footer)
        except TimefsError as error:
            self._bad.add(pack)
            self._find(str(error), BadSlots(*pack, 0, 1 << 32))
            return
        for flaw in footer.flaws + self._reader.second_copies(footer):
            text = f"{flaw}; the other copy is whole, nothing is lost"
            self._findings.append(Finding(False, text, []))
        self._packs += 1
        self._bytes += 2 * footer.envelope.footer_bytes + footer.envelope.digests_bytes

    def _check_content(self, pack: PackReference) -> None:
        footer = self._reader.footer(*pack)
        try:
            digests: bytes | None = self._reader.all_digests(*pack)
        except DamagedError as error:
            digests = None
            text = f"{error}; reads recompute them, nothing is lost"
            self._findings.append(Finding(False, text, []))
        self._check_rows(footer)
        if self._deep:
            table = frame_table(footer)
            for frame in range(len(table.first_slots) - 1):
                first, end = table.first_slots[frame], table.first_slots[frame + 1]
                self._check_frame(BadSlots(*pack, first, end), frame, digests)
        self._progress(footer.envelope.total_bytes)

    def _check_rows(self, footer: Footer) -> None:
        """Recompute every row's check from the footers, without reading data."""
        envelope = footer.envelope
        name = pack_name(envelope.writer, envelope.number)
        statement = self._reader.statement(footer)
        own = PackReference(envelope.writer, envelope.number)
        self._rows += statement.rows.size
        rows = statement.rows[statement.rows["kind"] == RowKind.DATA]
        fields: list[tuple[int, ...]] = rows.tolist()
        for _, _, file, offset, length, _, _, pack, slot, check in fields:
            target = own if pack == 0 else statement.packs[pack - 1]
            if target in self._bad:
                continue
            writer, number = target
            try:
                self._reader.prove(writer, number, slot, blocks_of(length), check)
            except TimefsError as error:
                bad = BadSlots(writer, number, slot, slot + blocks_of(length))
                self._find(f"pack {name}: row of file {file} at {offset}: {error}", bad)

    def _check_frame(self, slots: BadSlots, frame: int, digests: bytes | None) -> None:
        writer, number, first, end = slots
        try:
            made = self._reader.made_digests(writer, number, first, end - first)
        except DamagedError as error:
            self._find(str(error), slots)
            return
        self._bytes += (end - first) * BLOCK_BYTES
        if digests and made != digests[first * DIGEST_BYTES : end * DIGEST_BYTES]:
            where = f"pack {pack_name(writer, number)}: frame {frame}"
            self._find(f"{where}: its blocks are not those that were digested", slots)

    def _check_index(self) -> None:
        try:
            for stored in stored_pages(self._index):
                if stored.key.writer not in self._stopped:
                    self._check_page(stored)
        except DamagedError as error:
            self._find(str(error))
        for writer, number in lost_packs(self._index):
            bad = BadSlots(LOST_WRITER, writer, 0, 1 << 32)
            name = pack_name(writer, number)
            self._find(
                f"pack {name}: the index was made without it; put it back, `timefs rebuild`", bad
            )

    def _check_page(self, stored: StoredPage) -> None:
        key = stored.key
        try:
            runs = parse_page(*stored)
        except DamagedError as error:
            self._find(str(error))
            return
        where = f"index: writer {key.writer} file {key.file} page {key.page}"
        for fields in runs.tolist():
            self._check_run(where, Run(*fields))

    def _check_run(self, where: str, run: Run) -> None:
        if run.writer in (0, LOST_WRITER) or PackReference(run.writer, run.number) in self._bad:
            return
        count = blocks_of(run.row_length)
        try:
            self._reader.prove(run.writer, run.number, run.slot, count, run.check)
        except TimefsError as error:
            self._find(f"{where}: a run points at a wrong place: {error}; run `timefs rebuild`")

    def _compare_rebuilt(self) -> None:
        """A deep check makes the index again elsewhere: it must come out equal."""
        with tempfile.TemporaryDirectory(prefix="timefs-check-") as folder:
            again = Index(Path(folder), bytes.fromhex(self._repository.id))
            seen: list[WriterState] = []
            while True:  # until both have followed equally far, for captures may go on meanwhile
                again.follow(self._reader)
                self._index.follow(self._reader)
                with self._index.snapshot():
                    states = sorted(again.writers())
                    if states in (sorted(self._index.writers()), seen):
                        self._compare(again)
                        break
                seen = states
            again.close()

    def _compare(self, again: Index) -> None:
        for table in differing_tables(self._index, again):
            self._find(
                f"index: table {table} differs from what the packs say; run `timefs rebuild`"
            )

    def _check_catalog(self) -> None:
        try:
            for difference in Catalog.of(self._repository).differences():
                self._find(difference)
        except TimefsError as error:
            self._find(str(error))


def hurt(repository: Repository, bad: BadSlots) -> Iterator[str]:
    """The files that need bad slots, with the instants at which they do."""
    for (writer, file), pages in sorted(_candidates(repository.index, bad).items()):
        machine = next(s.machine for s in repository.index.writers() if s.writer == writer)
        if repository.index.stop(writer) is not None:
            continue  # said of the whole machine
        instants: list[Instant] = []
        name = f"file {file}"
        for instant in repository.history.instants(machine):
            state = next((s for s in repository.history.files(instant) if s.number == file), None)
            if state is None:
                continue
            name = state.name
            if _needs(repository.index, instant, state, pages, bad):
                instants.append(instant)
        if instants:
            yield _hurt_line(machine, name, instants)


def _candidates(index: Index, bad: BadSlots) -> dict[tuple[int, int], set[int]]:
    """Files by (writer, number), with the pages that may need bad slots; none means all."""
    candidates: dict[tuple[int, int], set[int]] = {}
    if bad.writer == LOST_WRITER:
        return {(bad.number, file): set() for file in files_of(index, bad.number)}
    for key, blob, _ in stored_pages(index):
        whole = len(blob) // RUN.itemsize * RUN.itemsize
        if _touches(np.frombuffer(blob[:whole], RUN), bad):
            candidates.setdefault((key.writer, key.file), set[int]()).add(key.page)
    return candidates


def _needs(
    index: Index, instant: Instant, state: FileState, pages: set[int], bad: BadSlots
) -> bool:
    if state.size < 0:
        return True
    at = position(instant.epoch, instant.sequence)
    for page in pages or range(-(-state.size // PAGE_BYTES)):
        expected = min(PAGE_BYTES, state.size - page * PAGE_BYTES)
        if expected <= 0:
            continue
        runs = _within(index.page(instant.writer, state.number, page, at), expected)
        if _touches(runs, bad):
            return True
        if bad.writer == LOST_WRITER and int(runs["length"].sum(dtype=np.int64)) < expected:
            return True
    return False


def _within(runs: Runs, length: int) -> Runs:
    """The runs up to where the file ends."""
    runs = runs[runs["offset"] < length].copy()
    runs["length"] = np.minimum(runs["length"], length - runs["offset"])
    return runs


def _touches(runs: Runs, bad: BadSlots) -> bool:
    if bad.writer == LOST_WRITER:
        return bool((runs["writer"] == LOST_WRITER).any())
    first = runs["slot"].astype(np.int64) + runs["skip"] // BLOCK_BYTES
    bytes_end = runs["skip"].astype(np.int64) + runs["length"] + BLOCK_BYTES - 1
    end = runs["slot"].astype(np.int64) + bytes_end // BLOCK_BYTES
    same = (runs["writer"] == bad.writer) & (runs["number"] == bad.number)
    return bool((same & (first < bad.end) & (end > bad.first)).any())


def _hurt_line(machine: str, name: str, instants: list[Instant]) -> str:
    times = [
        str(np.datetime64(instant.time_ns, "ns")).removesuffix("000000000").rstrip(".") + "Z"
        for instant in instants
    ]
    shown = times if len(times) <= 3 else [times[0], "…", times[-1]]
    return f"{machine} {name}: {len(times)} instants: {', '.join(shown)}"


def check(repository: Repository, *, deep: bool, progress: Callable[[int], None]) -> Report:
    """Check a repository; `progress` is told pack bytes as they are done.

    If the index is damaged, another one, made for the occasion, tells what the packs say.
    """
    try:
        repository.index.follow(repository.reader)
        repository.index.prove()
    except DamagedError as error:
        with (
            tempfile.TemporaryDirectory(prefix="timefs-check-") as folder,
            closing(Repository(repository.root, Path(folder), repository.clock)) as again,
        ):
            report = Check(again, deep=deep, progress=progress).run()
        finding = Finding(True, str(error), [])
        return report._replace(findings=[finding, *report.findings])
    return Check(repository, deep=deep, progress=progress).run()
