"""Where machines' logs stand, and how they are continued.

Defined here and only here: `MachineLogs` and `MachineState`: claim, fence, transaction, digest
maps. Used by the repository and the recorder. Thread-safe; several processes may continue logs of
one repository at once, and none of them ever locks it.
"""

import logging
import os
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from store.errors import DamagedError, ExistsError
from store.format.keys import Keys
from store.format.limits import EPOCH_MAX
from store.format.pack import NO_HEAD, PackIdentity, build_pack, pack_name
from store.format.row import BLOCK_BYTES, ROW, blocks_of
from store.format.statement import encode_statement
from store.history import Instant
from store.index.files import KnownFile, known_files
from store.index.index import DIGEST_MAPS, Index
from store.index.indexed_history import IndexedHistory
from store.index.line import known_writers
from store.index.packs import lost_packs, newest_packs, pack_sizes, sampled_packs
from store.index.run import PAGE_BYTES
from store.log.claim import claim
from store.log.digestmap import DigestMap, page_digests
from store.log.duplicates import DuplicateSearch
from store.log.transaction import SealPolicy, Transaction, TransactionIdentity
from store.packs.reader import PackReader

log = logging.getLogger(__name__)

NEWEST_PACKS: Final = 64
"""A machine's newest packs, probed for duplicates one digest at a time."""


class MachineState(NamedTuple):
    """Where a machine's log stands, for whoever continues it."""

    machine: str
    writer: int
    next_number: int
    epoch: int
    """Newest epoch in use."""
    instant: Instant | None
    """The newest."""

    @property
    def newest_ns(self) -> int | None:
        """Time of the newest instant."""
        return None if self.instant is None else self.instant.time_ns


class MachineLogs:
    """The logs of all machines of a repository."""

    def __init__(  # noqa: PLR0913, PLR0917  # what a log is written with
        self,
        repository: bytes,
        keys: Keys,
        reader: PackReader,
        index: Index,
        history: IndexedHistory,
        claims: Path,
        cache: Path,
        seal: SealPolicy,
    ) -> None:
        self._repository = repository
        self._keys = keys
        self._reader = reader
        self._index = index
        self._history = history
        self._claims = claims
        self._cache = cache
        self._seal = seal

    def claim(self, machine: str, *, wait: bool) -> AbstractContextManager[None]:
        """Be the only one on this host that captures the machine; nothing else is held up."""
        return claim(self._claims, machine, wait=wait)

    def notice_losses(self) -> None:
        """See that the index knows no pack that is gone or cut short: else it is rebuilt.

        Whoever continues a log asks this first, so that what was lost is stored anew.
        """
        self._index.follow(self._reader)
        for writer in [state.writer for state in self._index.writers()]:
            if self._index.stop(writer) is not None:
                continue  # `state` says so, of its machine
            there = self._reader.backend.sizes(writer)
            known = pack_sizes(self._index, writer)
            gone = [number for number, size in known if there.get(number) != size]
            if gone:
                name = pack_name(writer, gone[0])
                log.warning(
                    "pack %s and %d more: missing or cut short; the index is made again without; "
                    "run `timefs check` to see what that hurts",
                    name,
                    len(gone) - 1,
                )
                self._index.rebuild(self._reader)
                return

    def state(self, machine: str) -> MachineState:
        """Where the machine's log stands; a new machine is given the next free writer.

        Raises:
            ForkedError: the packs are not those that were known.
            UnsupportedError: a newer timefs went on with the log.
        """
        self._index.follow(self._reader)
        while True:
            writers = sorted(self._index.writers(), reverse=True)
            known = {state.machine: state for state in writers}  # the first to claim it has it
            if machine in known:
                break
            taken = {state.writer for state in writers} | {*known_writers(self._reader.backend)}
            self._register(machine, max(taken, default=0) + 1)
            self._index.follow(self._reader)
        state = known[machine]
        stop = self._index.stop(state.writer)
        if stop is not None:
            raise type(stop)(f"{machine}: {stop}")
        if state.epoch >= EPOCH_MAX:
            raise DamagedError(f"{machine}: its epochs are used up; capture it under another name")
        return MachineState(
            machine,
            state.writer,
            state.next_number,
            self._index.newest_epoch(state.writer),
            self._history.newest(machine),
        )

    def _register(self, machine: str, writer: int) -> None:
        """Pack 0 of a writer holds nothing but its machine's name; whoever makes it has it."""
        identity = PackIdentity(
            self._repository, writer, 0, 0, os.urandom(16), 1, last=True, previous=NO_HEAD
        )
        content = build_pack(identity, [], b"", encode_statement(np.empty(0, ROW), [], [machine]))
        with suppress(ExistsError):
            self._reader.backend.create(pack_name(writer, 0), content)

    def begin(
        self, state: MachineState, time_ns: int, *, each_byte_once: bool = False
    ) -> Transaction:
        """Start a transaction in a new epoch of the machine, whose claim the caller holds.

        A caller that covers no byte of a file twice says so: if a pack of the transaction is lost
        later, the others still count. What killed captures left unfinished is swept away here.
        """
        backend = self._reader.backend
        backend.sweep(state.writer)
        identity = TransactionIdentity(
            self._repository,
            state.machine,
            state.writer,
            state.next_number,
            self._index.head(state.writer),
            state.epoch + 1,
            time_ns,
            each_byte_once,
        )
        newest = newest_packs(self._index, state.writer, NEWEST_PACKS)
        duplicates = DuplicateSearch(
            self._reader, lambda prefixes: sampled_packs(self._index, prefixes), reversed(newest)
        )
        return Transaction(backend, self._keys, identity, duplicates, self._seal)

    def known_files(self, state: MachineState) -> list[KnownFile]:
        """Every file the machine ever had, as it stands now."""
        return known_files(self._index, state.writer)

    def digest_map(self, state: MachineState, file: KnownFile) -> DigestMap:
        """The digests of the file's newest state, as a working copy to compare with and change."""
        path = self._cache / DIGEST_MAPS / f"{state.writer:08x}-{file.number:08x}"
        digest_map = DigestMap(path, file.size, len(lost_packs(self._index)))
        digest_map.open(file.position, lambda empty: self._fill(empty, state.writer, file))
        return digest_map

    def _fill(self, digest_map: DigestMap, writer: int, file: KnownFile) -> None:
        """Make a map from the index and the packs' digests."""
        for page in range(-(-file.size // PAGE_BYTES)):
            first = page * PAGE_BYTES // BLOCK_BYTES
            length = min(PAGE_BYTES, file.size - page * PAGE_BYTES)
            runs = self._index.page(writer, file.number, page, file.position)
            if runs.size != 1 or runs["writer"][0] or runs["length"][0] < length:
                blocks = digest_map.blocks(first, blocks_of(length))
                page_digests(self._reader, runs, length, blocks)  # else zeros: it starts as such
