"""The repository: one place where everything of the store comes together.

Defined here and only here: making and opening a repository, its `History`, and the write order
(claim, transaction, packs, then index). Used by the commands. Thread-safe; several processes may
use one repository at once, and none of them ever locks it.
"""

import json
import logging
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from store.clock import Clock, SystemClock
from store.description import describe
from store.errors import DamagedError, ExistsError, NotFoundError
from store.format.pack import PackIdentity, build_pack, encode_statement, pack_name
from store.format.row import BLOCK_BYTES, ROW, blocks_of, epoch_of, position, sequence_of
from store.history import FileKind, FileState, History, Instant
from store.image import Image
from store.index.file_image import PageCache, Snapshot
from store.index.index import DIGEST_MAPS, Index
from store.index.run import PAGE_BYTES, Runs
from store.index.schema import EventKind, decode_name, encode_name
from store.log.claim import claim
from store.log.digestmap import DigestMap, page_digests
from store.log.duplicates import DuplicateSearch
from store.log.transaction import Transaction, TransactionIdentity
from store.objects.backend import DirectoryBackend
from store.packs.reader import CACHE_BYTES, PackReader

log = logging.getLogger(__name__)

NEWEST_PACKS: Final = 64
"""A machine's newest packs, probed for duplicates one digest at a time."""

BY_MACHINE: Final = "SELECT writer FROM writers WHERE machine = ?"

FILE_KINDS: Final = [FileKind.CONTAINER, FileKind.DISK]
"""A kind's number in a pack is its place here."""


class MachineState(NamedTuple):
    """Where a machine's history stands, for whoever continues it."""

    machine: str
    writer: int
    next_number: int
    epoch: int
    """Newest epoch in use."""
    newest_ns: int | None
    """Time of the newest instant."""
    instant: Instant | None


class KnownFile(NamedTuple):
    """A file that a machine has or had, as the newest state knows it."""

    name: str
    number: int
    kind: FileKind
    size: int
    """Bytes; 0 when dropped or when a lost pack took the knowledge."""
    position: int
    """Of its newest change."""
    dropped: bool


def default_cache() -> Path:
    """Where derived indexes live unless told otherwise."""
    if "XDG_CACHE_HOME" in os.environ:
        return Path(os.environ["XDG_CACHE_HOME"]) / "timefs"
    if os.geteuid() == 0:
        return Path("/var/cache/timefs")
    return Path.home() / ".cache" / "timefs"


class Repository(History):
    """An open repository."""

    def __init__(
        self,
        root: Path,
        cache: Path | None = None,
        clock: Clock | None = None,
        frame_cache_bytes: int = CACHE_BYTES,
    ) -> None:
        description = describe(root)
        self.root = root
        self.id = description.id
        self.key = bytes.fromhex(description.key)
        self.clock = clock or SystemClock()
        self.cache = (cache or default_cache()) / self.id
        self.backend = DirectoryBackend(root)
        identity = bytes.fromhex(self.id)
        self.reader = PackReader(self.backend, identity, self.key, frame_cache_bytes)
        self.index = Index(self.cache, identity)
        self._pages = PageCache(self._page, self.index.zeros_until)

    # What History asks

    def now_ns(self) -> int:
        return self.clock.now_ns()

    def machines(self) -> Sequence[str]:
        self.index.follow(self.reader)
        rows = self.index.ask(
            "SELECT machine FROM writers WHERE writer IN (SELECT writer FROM instants)"
        )
        return sorted(decode_name(machine) for (machine,) in rows)

    def _writer(self, machine: str) -> int:
        rows = self.index.ask(BY_MACHINE, encode_name(machine))
        if not rows:
            self.index.follow(self.reader)
            rows = self.index.ask(BY_MACHINE, encode_name(machine))
        else:
            self.index.follow(self.reader, rows[0][0])
        if not rows:
            raise NotFoundError(f"{machine}: no such machine; `timefs log` lists them")
        return rows[0][0]

    def instants(self, machine: str) -> Sequence[Instant]:
        return self._instants(machine, "ORDER BY time_ns")

    def _instants(self, machine: str, condition: str, *values: int) -> list[Instant]:
        writer = self._writer(machine)
        rows = self.index.ask(
            f"SELECT position, time_ns, fuzzy FROM instants WHERE writer = ? {condition}",  # noqa: S608
            writer,
            *values,
        )
        return [
            Instant(machine, writer, epoch_of(at), sequence_of(at), time_ns, bool(fuzzy))
            for at, time_ns, fuzzy in rows
        ]

    def changed(self, machine: str) -> Sequence[Instant]:
        instants = self.instants(machine)
        if not instants:
            return []
        rows = self.index.ask(
            "SELECT first_position, last_position FROM changes WHERE writer = ?1"
            " UNION ALL SELECT position, position FROM events WHERE writer = ?1",
            instants[0].writer,
        )
        firsts, lasts = np.sort(np.array(rows, np.int64).reshape(-1, 2), axis=0).T
        own = np.array([position(each.epoch, each.sequence) for each in instants], np.int64)
        begun = np.searchsorted(firsts, own, side="right")
        ended = np.searchsorted(lasts, [-1, *own[:-1]], side="right")
        return [instants[at] for at in np.flatnonzero(begun > ended).tolist()]

    def at(self, machine: str, time_ns: int) -> Instant:
        found = self._instants(machine, "AND time_ns <= ? ORDER BY time_ns DESC LIMIT 1", time_ns)
        if not found:
            raise NotFoundError(f"this time is before the first instant of {machine}")
        return found[0]

    def latest(self, machine: str) -> Instant:
        found = self._instants(machine, "ORDER BY fuzzy, time_ns DESC LIMIT 1")
        if not found:
            raise NotFoundError(f"{machine}: it has no instant yet")
        return found[0]

    def watermark_ns(self, machine: str) -> int:
        found = self._instants(machine, "ORDER BY time_ns DESC LIMIT 1")
        return found[0].time_ns if found else 0

    def _page(self, writer: int, file: int, page: int, at: int) -> Runs:
        self._reach(writer, at)
        return self.index.page(writer, file, page, at)

    def _reach(self, writer: int, at: int) -> None:
        """See that the index knows a position: it may have been made anew since that was named."""
        state = self.index.writer(writer)
        if state is None or state.position < at:
            self.index.follow(self.reader, writer)

    def files(self, instant: Instant) -> Sequence[FileState]:
        at = position(instant.epoch, instant.sequence)
        self._reach(instant.writer, at)
        rows = self.index.ask(
            "SELECT file, kind, value, name FROM events WHERE writer = ? AND position <= ?"
            " ORDER BY position",
            instant.writer,
            at,
        )
        sizes: dict[int, int] = {}
        names: dict[int, tuple[str, int]] = {}
        for file, kind, value, name in rows:
            if kind == EventKind.FILE:
                names[file] = (decode_name(name), value)
            elif kind == EventKind.RESIZE:
                sizes[file] = value
            elif kind == EventKind.LOST:
                sizes[file] = -1
            else:
                names.pop(file, None)
        names = self._perhaps_lost(instant.writer, at, {row[0] for row in rows}) | names
        states = [
            self._file_state(instant, at, file, name, kind, sizes.get(file, -1))
            for file, (name, kind) in names.items()
        ]
        return sorted(states)

    def _perhaps_lost(self, writer: int, at: int, known: set[int]) -> dict[int, tuple[str, int]]:
        """Files that a lost pack may have begun by a position: shown, though nothing is known."""
        if not self.index.ask(
            "SELECT 1 FROM lost WHERE writer = ? AND position <= ? LIMIT 1", writer, at
        ):
            return {}
        rows = self.index.ask(
            "SELECT file, name, value, min(position) FROM events WHERE writer = ? AND kind = ?"
            " GROUP BY file",
            writer,
            EventKind.FILE,
        )
        return {
            file: (decode_name(name), value) for file, name, value, _ in rows if file not in known
        }

    def _file_state(
        self, instant: Instant, at: int, file: int, name: str, kind: int, size: int
    ) -> FileState:
        rows = self.index.ask(
            "SELECT last_position, first_position, time_ns FROM changes WHERE writer = ?"
            " AND file = ? AND first_position <= ? ORDER BY first_position DESC LIMIT 1",
            instant.writer,
            file,
            at,
        )
        last, _, time_ns = rows[0] if rows else (at, at, instant.time_ns)  # all is lost
        changed = min(last, at)
        return FileState(
            name,
            file,
            FILE_KINDS[kind],
            size,
            min(time_ns, instant.time_ns),
            epoch_of(changed),
            sequence_of(changed),
        )

    def open(self, instant: Instant, file: FileState) -> Image:
        name = f"{instant.machine} {file.name}"
        if file.size < 0:
            raise DamagedError(f"{name}: its size went with a lost pack; run `timefs check`")
        at = position(file.changed_epoch, file.changed_sequence)
        return Snapshot(self._pages, self.reader, instant.writer, file.number, at, file.size, name)

    # Writing

    def claim(self, machine: str, *, wait: bool) -> AbstractContextManager[None]:
        """Be the only one on this host that captures the machine; nothing else is held up."""
        return claim(self.root, machine, wait=wait)

    def notice_losses(self) -> None:
        """See that the index knows no pack that is gone or cut short: else it is made again.

        Whoever continues a history asks this first, so that what was lost is stored anew.
        """
        self.index.follow(self.reader)
        for writer in [state.writer for state in self.index.writers()]:
            there = self.backend.sizes(writer)
            known = self.index.ask("SELECT number, bytes FROM packs WHERE writer = ?", writer)
            gone = [number for number, size in known if there.get(number) != size]
            if gone:
                name = pack_name(writer, gone[0])
                log.warning(
                    "pack %s and %d more: missing or cut short; the index is made again without; "
                    "run `timefs check` to see what that hurts",
                    name,
                    len(gone) - 1,
                )
                self.index.rebuild(self.reader)
                return

    def state(self, machine: str) -> MachineState:
        """Where the machine's history stands; a new machine is given the next free writer."""
        self.index.follow(self.reader)
        while True:
            known = {state.machine: state for state in self.index.writers()}
            if machine in known:
                break
            self._register(machine, max((s.writer for s in known.values()), default=0) + 1)
            self.index.follow(self.reader)
        state = known[machine]
        if not self.index.agrees(self.reader, state.writer):
            raise DamagedError(
                f"{machine}: its newest pack is not there any more, as when a repository is put "
                f"back from an older copy; run `timefs check` for what that hurts, and `timefs "
                f"rebuild` to go on without it"
            )
        newest = self._instants(machine, "ORDER BY time_ns DESC LIMIT 1")
        return MachineState(
            machine,
            state.writer,
            state.next_number,
            self.index.newest_epoch(state.writer),
            newest[0].time_ns if newest else None,
            newest[0] if newest else None,
        )

    def _register(self, machine: str, writer: int) -> None:
        """Pack 0 of a writer holds nothing but its machine's name; whoever makes it has it."""
        identity = PackIdentity(bytes.fromhex(self.id), writer, 0, 0, os.urandom(16), 1, last=True)
        content = build_pack(identity, [], b"", encode_statement(np.empty(0, ROW), [], [machine]))
        with suppress(ExistsError):
            self.backend.create(pack_name(writer, 0), content)

    def begin(
        self, state: MachineState, time_ns: int, *, each_byte_once: bool = False
    ) -> Transaction:
        """Start a transaction in a new epoch of the machine, whose claim the caller holds.

        A caller that covers no byte of a file twice says so: if a pack of the transaction is lost
        later, the others still count. What killed captures left unfinished is swept away here.
        """
        self.backend.sweep(state.writer)
        identity = TransactionIdentity(
            bytes.fromhex(self.id),
            state.machine,
            state.writer,
            state.next_number,
            state.epoch + 1,
            time_ns,
            each_byte_once,
        )
        newest = self.index.ask(
            "SELECT writer, number FROM packs WHERE writer = ? ORDER BY number DESC LIMIT ?",
            state.writer,
            NEWEST_PACKS,
        )
        duplicates = DuplicateSearch(self.reader, self._samples, reversed(newest))
        return Transaction(self.backend, self.key, identity, duplicates)

    def known_files(self, state: MachineState) -> list[KnownFile]:
        """Every file the machine ever had, as it stands now."""
        rows = self.index.ask(
            "SELECT file, kind, value, name, position FROM events WHERE writer = ?"
            " ORDER BY position",
            state.writer,
        )
        known: dict[int, KnownFile] = {}
        for file, kind, value, name, at in rows:
            old = known.get(file) or KnownFile("", file, FileKind.CONTAINER, 0, 0, dropped=True)
            if kind == EventKind.FILE:
                old = old._replace(name=decode_name(name), kind=FILE_KINDS[value], dropped=False)
            elif kind == EventKind.RESIZE:
                old = old._replace(size=value)
            elif kind == EventKind.LOST:
                old = old._replace(size=0)
            else:
                old = old._replace(size=0, dropped=True)
            known[file] = old._replace(position=at)
        newest = self.index.ask(
            "SELECT file, max(last_position) FROM changes WHERE writer = ? GROUP BY file",
            state.writer,
        )
        for file, at in newest:
            known[file] = known[file]._replace(position=max(at, known[file].position))
        return list(known.values())

    def digest_map(self, state: MachineState, file: KnownFile) -> DigestMap:
        """The digests of the file's newest state, as a working copy to compare with and change."""
        path = self.cache / DIGEST_MAPS / f"{state.writer:08x}-{file.number:08x}"
        digest_map = DigestMap(path, file.size, self.index.lost_packs())
        digest_map.open(file.position, lambda empty: self._fill(empty, state.writer, file))
        return digest_map

    def _fill(self, digest_map: DigestMap, writer: int, file: KnownFile) -> None:
        """Make a map from the index and the packs' digests."""
        for page in range(-(-file.size // PAGE_BYTES)):
            first = page * PAGE_BYTES // BLOCK_BYTES
            length = min(PAGE_BYTES, file.size - page * PAGE_BYTES)
            runs = self.index.page(writer, file.number, page, file.position)
            if runs.size != 1 or runs["writer"][0] or runs["length"][0] < length:
                blocks = digest_map.blocks(first, blocks_of(length))
                page_digests(self.reader, runs, length, blocks)  # else zeros: a map starts as such

    def _samples(self, prefixes: Sequence[int]) -> list[tuple[int, int]]:
        rows = self.index.ask(
            "SELECT DISTINCT writer, number FROM samples"
            " WHERE prefix IN (SELECT value FROM json_each(?)) GROUP BY prefix",
            json.dumps(prefixes),
        )
        return [(writer, number) for writer, number in rows]

    def close(self) -> None:
        """Let go of open packs and of this thread's connection to the index."""
        self.backend.close()
        self.index.close()
