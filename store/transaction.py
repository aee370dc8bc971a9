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

from store.backend import Backend
from store.digest import digests_of, nonzero_blocks, row_check
from store.duplicates import DuplicateSearch
from store.errors import BusyError, ExistsError
from store.frame import FRAME_BLOCKS_MAX, SCATTERED_BLOCKS_MAX, Frame, encode_frame
from store.pack import PackIdentity, PackReference, build_pack, encode_statement, pack_name
from store.row import (
    BLOCK_BYTES,
    DIGEST_BYTES,
    INSTANT_FUZZY,
    ROW_BLOCKS_MAX,
    Row,
    RowKind,
    blocks_of,
)
from store.stretch import stretches

PACK_BLOCKS: Final = 8192
"""A pack is sealed after this many slots: 32 MiB of plain bytes."""

PACK_ROWS_MAX: Final = 1 << 17
"""… or this many rows."""

PACKS_IN_FLIGHT: Final = 2
"""Packs being compressed or written while the next is filled."""


class TransactionIdentity(NamedTuple):
    """Whose transaction it is and where it goes on."""

    repository: bytes
    machine: str
    writer: int
    next_number: int
    epoch: int
    time_ns: int
    each_byte_once: bool = False
    """The caller's promise that it covers no byte of a file twice."""


class Committed(NamedTuple):
    """What a transaction came to."""

    packs: int
    stored_bytes: int
    new_bytes: int
    duplicate_bytes: int


class _Filling:
    """A pack while rows and blocks come in."""

    def __init__(self, machine: str) -> None:
        self.rows: list[Row] = []
        self.references: dict[PackReference, int] = {}
        self.names = [machine]
        self.digests: list[bytes] = []
        self.slots = 0
        self.frames: list[Future[Frame]] = []
        self.frame: list[bytes] = []
        self.frame_blocks = 0
        self.frame_end: tuple[int, int] = (-1, -1)


class Transaction:
    """One machine's changes on their way into packs."""

    def __init__(
        self,
        backend: Backend,
        key: bytes,
        identity: TransactionIdentity,
        duplicates: DuplicateSearch,
    ) -> None:
        self._backend = backend
        self._key = key
        self._identity = identity
        self._duplicates = duplicates
        self._transaction = os.urandom(16)
        self._number = identity.next_number
        self._part = 1
        self._sequence = 1
        self._time_ns = identity.time_ns
        self._filling = _Filling(identity.machine)
        self._workers = ThreadPoolExecutor(max(2, os.cpu_count() or 2), "compress")
        self._sealer = ThreadPoolExecutor(1, "seal")
        self._sealing: list[Future[int]] = []
        self._stored_bytes = 0
        self._new_bytes = 0
        self._duplicate_bytes = 0

    def _row(self, row: Row) -> None:
        filling = self._filling
        if len(filling.rows) >= PACK_ROWS_MAX:
            self._seal(last=False)
            filling = self._filling
        filling.rows.append(row._replace(sequence=self._sequence, time_ns=self._time_ns))
        self._sequence += 1

    def declare(self, file: int, name: str, kind: int) -> None:
        """Give a file its name and kind; a file must be declared in the transaction it starts."""
        if len(self._filling.rows) + 1 >= PACK_ROWS_MAX:
            self._seal(last=False)
        self._filling.names.append(name)
        at = len(self._filling.names) - 1
        self._row(Row(RowKind.FILE, kind, file, at, 0, 0, 0, 0, 0, 0))

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
        digests = digests_of(self._key, padded, wanted)
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
        places = self._duplicates.find(digests)
        run = _RowInMaking(self, file, offset, length)
        for index, number in enumerate(wanted):
            digest = digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
            place = places[index] or self._duplicates.unsealed(digest)
            if place is None:
                if self._filling.slots == PACK_BLOCKS:
                    run.close()
                    self._seal(last=False)
                place = self._store(file, offset + number * BLOCK_BYTES, padded, number, digest)
            else:
                self._duplicate_bytes += BLOCK_BYTES
            run.add(number, place, digest)
        run.close()

    def _store(
        self, file: int, offset: int, padded: memoryview, number: int, digest: bytes
    ) -> tuple[int, int, int]:
        filling = self._filling
        follows = filling.frame_end == (file, offset)
        full = filling.frame_blocks >= FRAME_BLOCKS_MAX
        if full or (not follows and filling.frame_blocks >= SCATTERED_BLOCKS_MAX):
            self._close_frame()
        at = number * BLOCK_BYTES
        filling.frame.append(bytes(padded[at : at + BLOCK_BYTES]))
        filling.frame_blocks += 1
        filling.frame_end = (file, offset + BLOCK_BYTES)
        place = (self._identity.writer, self._number, filling.slots)
        filling.digests.append(digest)
        filling.slots += 1
        self._duplicates.remember(digest, place)
        self._new_bytes += BLOCK_BYTES
        return place

    def _close_frame(self) -> None:
        filling = self._filling
        if filling.frame_blocks:
            filling.frames.append(self._workers.submit(encode_frame, b"".join(filling.frame)))
            filling.frame = []
            filling.frame_blocks = 0

    def data_row(
        self, file: int, offset: int, length: int, place: tuple[int, int, int], digests: bytes
    ) -> None:
        """A row of data in consecutive slots."""
        writer, number, slot = place
        if len(self._filling.rows) >= PACK_ROWS_MAX:
            self._seal(last=False)
        pack = 0
        if (writer, number) != (self._identity.writer, self._number):
            references = self._filling.references
            pack = references.setdefault(PackReference(writer, number), len(references) + 1)
        self._row(Row(RowKind.DATA, 0, file, offset, length, 0, 0, pack, slot, row_check(digests)))

    def _seal(self, *, last: bool) -> None:
        self._close_frame()
        filling = self._filling
        identity = PackIdentity(
            self._identity.repository,
            self._identity.writer,
            self._number,
            self._identity.epoch,
            self._transaction,
            self._part,
            last,
            self._identity.each_byte_once,
        )
        self._sealing.append(self._sealer.submit(self._put, identity, filling))
        self._duplicates.sealed(b"".join(filling.digests), identity.writer, identity.number)
        self._number += 1
        self._part += 1
        self._filling = _Filling(self._identity.machine)
        while len(self._sealing) > PACKS_IN_FLIGHT:
            self._stored_bytes += self._sealing.pop(0).result()

    def _put(self, identity: PackIdentity, filling: _Filling) -> int:
        frames = [frame.result() for frame in filling.frames]
        statement = encode_statement(filling.rows, list(filling.references), filling.names)
        content = build_pack(identity, frames, b"".join(filling.digests), statement)
        try:
            self._backend.create(pack_name(identity.writer, identity.number), content)
        except ExistsError as error:
            raise BusyError(
                f"{self._identity.machine}: another capture of it wrote pack {identity.number} "
                f"meanwhile and fenced this one; nothing was lost, capture again"
            ) from error
        return len(content)

    def commit(self) -> Committed:
        """Seal what is left; once this returns, the transaction is durable."""
        try:
            self._seal(last=True)
            for sealing in self._sealing:
                self._stored_bytes += sealing.result()
        finally:
            self.abandon()
        return Committed(self._part - 1, self._stored_bytes, self._new_bytes, self._duplicate_bytes)

    def abandon(self) -> None:
        """Stop; packs sealed so far stay and serve as duplicates."""
        self._sealer.shutdown(wait=True, cancel_futures=True)
        self._workers.shutdown(wait=True, cancel_futures=True)


class _RowInMaking:
    """Joins neighbouring blocks in neighbouring slots into rows."""

    def __init__(self, transaction: Transaction, file: int, offset: int, length: int) -> None:
        self._transaction = transaction
        self._file = file
        self._offset = offset
        self._length = length
        self._first = 0
        self._place = (0, 0, 0)
        self._digests: list[bytes] = []

    def add(self, number: int, place: tuple[int, int, int], digest: bytes) -> None:
        """The block of that number is at that place."""
        count = len(self._digests)
        writer, pack, slot = self._place
        follows = number == self._first + count and place == (writer, pack, slot + count)
        if not follows or count >= ROW_BLOCKS_MAX:
            self.close()
            self._first, self._place = number, place
        self._digests.append(digest)

    def close(self) -> None:
        """Write the row that was in making, if any."""
        if not self._digests:
            return
        start = self._first * BLOCK_BYTES
        end = min(start + len(self._digests) * BLOCK_BYTES, self._length)
        self._transaction.data_row(
            self._file, self._offset + start, end - start, self._place, b"".join(self._digests)
        )
        self._digests = []
