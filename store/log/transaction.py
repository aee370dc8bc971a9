"""Transactions: how changes become rows and frames, and packs that exist all together or not.

Defined here and only here: `Transaction` (blocks, zeros, resizes in; sealed packs out) and the
duplicate search. Used by the repository for one machine at a time. Not thread-safe: one
thread fills a transaction; compressing and sealing run on threads of its own. The commit point is
the creation of the transaction's last pack.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from store.errors import BusyError, ExistsError
from store.format.digest import digests_of, nonzero_blocks, row_check
from store.format.keys import Keys
from store.format.pack import Head, PackIdentity, build_pack, fingerprint_of, pack_name
from store.format.row import (
    BLOCK_BYTES,
    DIGEST_BYTES,
    FILE_KINDS,
    INSTANT_FUZZY,
    ROW,
    ROW_BLOCKS_MAX,
    Row,
    RowKind,
    blocks_of,
)
from store.format.statement import PackReference, encode_statement
from store.history import FileKind
from store.log.duplicates import DuplicateSearch, Places
from store.log.filling import Filling
from store.objects.backend import Backend
from store.ranges import stretches

BATCH_BLOCKS: Final = 1024
"""Blocks that are looked up and placed together."""

PACKS_IN_FLIGHT: Final = 1
"""Packs being compressed or written while the next is filled."""

Digests = npt.NDArray[np.void]
"""Digests, one an element."""


class SealPolicy(NamedTuple):
    """When a pack is full."""

    blocks: int = 8192
    """Slots: 32 MiB of plain bytes."""
    rows: int = 1 << 17
    """Besides those of one batch."""


class TransactionIdentity(NamedTuple):
    """Whose transaction it is and where it goes on."""

    repository: bytes
    machine: str
    writer: int
    next_number: int
    head: Head
    """The newest pack before `next_number`."""
    epoch: int
    time_ns: int
    each_byte_once: bool = False
    """The caller's promise that it covers no byte of a file twice."""


class Sealed(NamedTuple):
    """A pack that is durable."""

    stored_bytes: int
    head: Head


class Committed(NamedTuple):
    """What a transaction came to."""

    packs: int
    stored_bytes: int
    new_bytes: int
    duplicate_bytes: int


class Transaction:
    """One machine's changes on their way into packs."""

    def __init__(
        self,
        backend: Backend,
        keys: Keys,
        identity: TransactionIdentity,
        duplicates: DuplicateSearch,
        policy: SealPolicy,
    ) -> None:
        self._backend = backend
        self._keys = keys
        self._identity = identity
        self._duplicates = duplicates
        self._policy = policy
        self._transaction = os.urandom(16)
        self._number = identity.next_number
        self._part = 1
        self._sequence = 1
        self._time_ns = identity.time_ns
        self._workers = ThreadPoolExecutor(max(2, os.cpu_count() or 2), "compress")
        self._filling = Filling(identity.machine, self._workers)
        self._sealer = ThreadPoolExecutor(1, "seal")
        self._sealing: list[Future[Sealed]] = []
        self._stored_bytes = 0
        self._new_bytes = 0
        self._duplicate_bytes = 0

    def _row(self, row: Row) -> None:
        if self._filling.row_count >= self._policy.rows:
            self._seal(last=False)
        self._filling.add_row(row._replace(sequence=self._sequence, time_ns=self._time_ns))
        self._sequence += 1

    def declare(self, file: int, name: str, kind: FileKind) -> None:
        """Give a file its name and kind; a file must be declared in the transaction it starts."""
        if self._filling.row_count + 1 >= self._policy.rows:
            self._seal(last=False)
        self._filling.names.append(name)
        at = len(self._filling.names) - 1
        self._row(Row(RowKind.FILE, FILE_KINDS.index(kind), file, at, 0, 0, 0, 0, 0, 0))

    def resize(self, file: int, size: int) -> None:
        """Set a file's size; what it gains must be written, as data or zeros."""
        self._row(Row(RowKind.RESIZE, 0, file, size, 0, 0, 0, 0, 0, 0))

    def drop(self, file: int) -> None:
        """End a file."""
        self._row(Row(RowKind.DROP, 0, file, 0, 0, 0, 0, 0, 0, 0))

    def zero(self, file: int, offset: int, length: int) -> None:
        """`length` bytes at `offset` are zeros."""
        if length:
            self._row(Row(RowKind.ZERO, 0, file, offset, length, 0, 0, 0, 0, 0))

    def instant(self, time_ns: int, *, fuzzy: bool) -> None:
        """The state now is worth listing, at `time_ns`, which rises from instant to instant."""
        self._time_ns = time_ns
        self._row(Row(RowKind.INSTANT, INSTANT_FUZZY if fuzzy else 0, 0, 0, 0, 0, 0, 0, 0, 0))

    def write(self, file: int, offset: int, content: bytes | memoryview) -> None:
        """Bytes at any offset, cut at the 4 KiB grid; zeros found on the way become zero rows."""
        view = memoryview(content)
        at = 0
        head = min(-offset % BLOCK_BYTES, len(view))
        if head:
            self._write_aligned(file, offset, view[:head])
            at = head
        if at < len(view):
            self._write_aligned(file, offset + at, view[at:])

    def _write_aligned(self, file: int, offset: int, view: memoryview) -> None:
        padded = view
        if len(view) % BLOCK_BYTES:
            padded = memoryview(bytes(view).ljust(blocks_of(len(view)) * BLOCK_BYTES, b"\0"))
        kept = nonzero_blocks(np.frombuffer(padded, np.uint8))
        wanted = np.flatnonzero(kept).tolist()
        digests = digests_of(self._keys.digest, padded, wanted)
        self.blocks(file, offset, len(view), padded, wanted, digests)
        for first, end in stretches(np.flatnonzero(~kept)):
            start = first * BLOCK_BYTES
            self.zero(file, offset + start, min(end * BLOCK_BYTES, len(view)) - start)

    def blocks(  # the hot path of a capture takes what it has at hand
        self,
        file: int,
        offset: int,
        length: int,
        padded: memoryview,
        wanted: Sequence[int],
        digests: bytes,
    ) -> None:
        """Store the blocks numbered in `wanted` of the `length` bytes at `offset`.

        Args:
            file: Number of the file.
            offset: Of the bytes in the file.
            length: Bytes; the last block may be short.
            padded: The bytes, filled up with zeros to whole blocks.
            wanted: Rising numbers of the blocks to store.
            digests: Theirs, in the same order.
        """
        numbers = np.asarray(wanted, np.int64)
        keys = np.frombuffer(digests, np.dtype((np.void, DIGEST_BYTES)))
        at = 0
        while at < len(numbers):
            if (
                self._filling.slots >= self._policy.blocks
                or self._filling.row_count >= self._policy.rows
            ):
                self._seal(last=False)
            batch = slice(at, at + BATCH_BLOCKS)
            places, fresh, count = self._places(keys[batch])
            numbered, done = numbers[at : at + count], keys[at : at + count]
            if fresh.size:
                self._filling.add_blocks(file, offset, padded, numbered[fresh])
                self._filling.digests.append(done[fresh].tobytes())
                self._new_bytes += fresh.size * BLOCK_BYTES
            self._duplicate_bytes += (count - fresh.size) * BLOCK_BYTES
            self._data_rows(file, offset, length, numbered, places, done)
            at += count

    def _places(self, keys: Digests) -> tuple[Places, npt.NDArray[np.int64], int]:
        """Places of the blocks with these digests, those of new ones in the pack being filled.

        Also which of them are new, and how many there are until the pack is full.
        """
        places = self._duplicates.find(keys.tobytes())
        missing = np.flatnonzero(places[:, 0] == 0)
        here = self._duplicates.unsealed
        next_slot = self._filling.slots
        slots: list[int] = []
        fresh: list[int] = []
        count = len(keys)
        for index, digest in zip(missing.tolist(), keys[missing].tolist(), strict=True):
            slot = here.get(digest)
            if slot is None:
                if next_slot == self._policy.blocks:
                    count = index
                    break
                slot = here[digest] = next_slot
                next_slot += 1
                fresh.append(index)
            slots.append(slot)
        missing = missing[: len(slots)]
        places[missing, :2] = self._identity.writer, self._number
        places[missing, 2] = slots
        return places[:count], np.array(fresh, np.int64), count

    def _data_rows(  # a batch and where it belongs
        self,
        file: int,
        offset: int,
        length: int,
        numbers: npt.NDArray[np.int64],
        places: Places,
        keys: Digests,
    ) -> None:
        """Join neighbouring blocks in neighbouring slots into rows."""
        firsts, ends = _joined(numbers, places)
        rows = np.zeros(firsts.size, ROW)
        starts = numbers[firsts] * BLOCK_BYTES
        rows["kind"] = RowKind.DATA
        rows["file"] = file
        rows["offset"] = offset + starts
        rows["length"] = np.minimum((numbers[ends - 1] + 1) * BLOCK_BYTES, length) - starts
        rows["sequence"] = np.arange(self._sequence, self._sequence + firsts.size)
        rows["time_ns"] = self._time_ns
        rows["pack"] = [self._reference(*place) for place in places[firsts, :2].tolist()]
        rows["slot"] = places[firsts, 2]
        digests = memoryview(keys.tobytes())
        edges = zip((firsts * DIGEST_BYTES).tolist(), (ends * DIGEST_BYTES).tolist(), strict=True)
        rows["check"] = [row_check(digests[first:end]) for first, end in edges]
        self._filling.add_rows(rows)
        self._sequence += firsts.size

    def _reference(self, writer: int, number: int) -> int:
        if (writer, number) == (self._identity.writer, self._number):
            return 0
        return self._filling.reference(PackReference(writer, number))

    def _is_full(self) -> bool:
        filling, policy = self._filling, self._policy
        return filling.slots >= policy.blocks or filling.row_count >= policy.rows

    def _seal(self, *, last: bool) -> None:
        filling = self._filling
        filling.close()
        identity = PackIdentity(
            self._identity.repository,
            self._identity.writer,
            self._number,
            self._identity.epoch,
            self._transaction,
            self._part,
            last,
            self._identity.head,
            self._identity.each_byte_once,
        )
        before = self._sealing[-1] if self._sealing else None
        self._sealing.append(self._sealer.submit(self._put, identity, filling, before))
        self._duplicates.sealed(b"".join(filling.digests), identity.writer, identity.number)
        self._number += 1
        self._part += 1
        self._filling = Filling(self._identity.machine, self._workers)
        while len(self._sealing) > PACKS_IN_FLIGHT:
            self._stored_bytes += self._sealing.pop(0).result().stored_bytes

    def _put(
        self, identity: PackIdentity, filling: Filling, before: Future[Sealed] | None
    ) -> Sealed:
        if before is not None:  # a pack after one that failed would leave a gap, read as a loss
            identity = identity._replace(previous=before.result().head)
        frames = filling.frames()
        statement = encode_statement(filling.rows, list(filling.references), filling.names)
        content = build_pack(identity, frames, b"".join(filling.digests), statement)
        try:
            self._backend.create(pack_name(identity.writer, identity.number), content)
        except ExistsError as error:
            raise BusyError(
                f"{self._identity.machine}: another capture of it took over at pack "
                f"{identity.number} and fenced this one; nothing was lost, capture again"
            ) from error
        return Sealed(len(content), Head(identity.number, fingerprint_of(content)))

    def commit(self) -> Committed:
        """Seal what is left; once this returns, the transaction is durable."""
        try:
            self._seal(last=True)
            for sealing in self._sealing:
                self._stored_bytes += sealing.result().stored_bytes
        finally:
            self.abandon()
        return Committed(self._part - 1, self._stored_bytes, self._new_bytes, self._duplicate_bytes)

    def abandon(self) -> None:
        """Stop; packs sealed so far stay and serve as duplicates."""
        self._sealer.shutdown(wait=True, cancel_futures=True)
        self._workers.shutdown(wait=True, cancel_futures=True)


def _joined(
    numbers: npt.NDArray[np.int64], places: Places
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First and last + 1 of the blocks that make up each row."""
    slots = places[:, 2].astype(np.int64)
    breaks = (np.diff(numbers) != 1) | (np.diff(slots) != 1)
    breaks |= (places[1:, :2] != places[:-1, :2]).any(axis=1)
    firsts = np.r_[0, np.flatnonzero(breaks) + 1]
    ends = np.r_[firsts[1:], numbers.size]
    if (ends - firsts).max() > ROW_BLOCKS_MAX:
        pairs = zip(firsts.tolist(), ends.tolist(), strict=True)
        firsts = np.array([at for pair in pairs for at in range(*pair, ROW_BLOCKS_MAX)], np.int64)
        ends = np.r_[firsts[1:], numbers.size]
    return firsts, ends
