"""Following a writer: taking its packs into the index, one transaction at a time.

Defined here and only here: the order in which packs count, what fences a transaction, and when a
pack is lost. Used by the index inside one SQLite transaction; no threads. The outcome is a pure
function of the packs: an index that followed along equals one made at once.
"""

import logging
from bisect import bisect_right
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from store.errors import DamagedError, NotFoundError, StrayError
from store.format.limits import MISSING_MAX
from store.format.pack import NO_HEAD, Envelope, pack_name
from store.format.row import epoch_of
from store.index.apply import TransactionApplier, apply_loss, write_samples
from store.index.database import Connection
from store.index.schema import decode_name, encode_name
from store.packs.reader import Footer, PackReader, frame_table

log = logging.getLogger(__name__)


class WriterState(NamedTuple):
    """How far the index has followed a writer."""

    writer: int
    machine: str
    next_number: int
    epoch: int
    """Newest epoch seen in any pack, complete or not."""
    position: int
    """Of the newest row of a complete transaction."""


WRITERS: Final = "SELECT writer, machine, next_number, epoch, position FROM writers"


def writer_state(row: tuple[int, bytes, int, int, int]) -> WriterState:
    """A writer's state from its row in the index."""
    writer, machine, *rest = row
    return WriterState(writer, decode_name(machine), *rest)


def passed(numbers: Sequence[int], number: int) -> bool:
    """Whether the sorted numbers go beyond one."""
    return bool(numbers) and numbers[-1] > number


class Follower:
    """One step of following a writer, inside a SQLite transaction."""

    def __init__(self, connection: Connection, reader: PackReader, writer: int) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        row = connection.row(f"{WRITERS} WHERE writer = ?", writer)
        self._state = writer_state(row) if row else WriterState(writer, "", 0, 0, 0)

    def run(self) -> None:
        """Take in packs up to the end of the next transaction, or as far as there are any."""
        while True:
            number = self._state.next_number
            name = pack_name(self._writer, number)
            exists = self._reader.backend.exists
            if not exists(name):
                there = self._reader.backend.list(self._writer)
                if not passed(there, number):
                    break
                if not exists(name):  # else it was sealed since it was asked for
                    self._expect_near(number, there)
                    self._lose(number, f"pack {name}: missing, though later packs are there")
                    continue
            try:
                with self._all_or_nothing():
                    footer = self._reader.footer(self._writer, number)
                    self._expect_line(footer.envelope)
                    self._record(number, footer)
                    if footer.envelope.last:
                        self._complete(footer)
                        break
            except (DamagedError, NotFoundError) as error:
                self._lose(number, str(error))
        writer, machine, *rest = self._state
        self._connection.change(
            "INSERT OR REPLACE INTO writers VALUES (?, ?, ?, ?, ?)",
            *(writer, encode_name(machine), *rest),
        )

    def _expect_near(self, number: int, there: Sequence[int]) -> None:
        """Take no file for a later pack that lies so far beyond that its number means nothing.

        Raises:
            StrayError: there is nothing nearer.
        """
        following = there[bisect_right(there, number)]
        if following - number > MISSING_MAX:
            raise StrayError(
                f"pack {pack_name(self._writer, following)}: expected a number near {number}, all "
                f"between are missing; it is left out; move it away if it is not yours"
            )

    @contextmanager
    def _all_or_nothing(self) -> Generator[None]:
        """A pack that proves damaged leaves nothing of itself or its transaction."""
        before = self._state
        self._connection.change("SAVEPOINT pack")
        try:
            yield
        except BaseException:
            self._connection.change("ROLLBACK TO pack")
            self._state = before
            raise
        finally:
            self._connection.change("RELEASE pack")

    def _expect_line(self, envelope: Envelope) -> None:
        """Take no pack that was made behind another than the one that is there.

        Raises:
            StrayError: it does not continue this line of packs.
        """
        known = self._connection.row(
            "SELECT fingerprint FROM packs WHERE writer = ? AND number = ?",
            *(self._writer, envelope.previous_number),
        )
        first = envelope.number == 0
        before = (NO_HEAD.fingerprint,) if first else known
        inside = envelope.previous_number < envelope.number or first
        if not inside or (before is not None and before[0] != envelope.previous):
            raise StrayError(
                f"pack {pack_name(self._writer, envelope.number)}: it was made behind another pack "
                f"{envelope.previous_number} than the one that is there; it and what follows are "
                f"left out; move them away if they are not yours"
            )

    def _record(self, number: int, footer: Footer) -> None:
        envelope = footer.envelope
        if not self._state.machine:
            machine = self._reader.statement(footer).names[0]
            self._state = self._state._replace(machine=machine)
        blocks = frame_table(footer).first_slots[-1]
        self._connection.change(
            "INSERT OR REPLACE INTO packs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self._writer,
            number,
            envelope.epoch,
            envelope.transaction,
            envelope.part,
            int(envelope.last),
            blocks,
            envelope.total_bytes,
            0,
            envelope.fingerprint,
        )
        digests = self._reader.whole_digests(self._writer, number)
        write_samples(self._connection, self._writer, number, digests)
        epoch = max(self._state.epoch, envelope.epoch)
        self._state = self._state._replace(next_number=number + 1, epoch=epoch)

    def _complete(self, footer: Footer) -> None:
        """Apply the transaction that ends with this pack, unless a newer epoch fenced it."""
        envelope = footer.envelope
        if envelope.epoch < self._state.epoch:
            return
        parts = self._connection.rows(
            "SELECT number FROM packs WHERE writer = ? AND trans = ? ORDER BY number",
            *(self._writer, envelope.transaction),
        )
        applier = TransactionApplier(self._connection, self._writer, envelope.epoch)
        previous = parts[0][0]
        for (number,) in parts:
            ordered = applier.position and not envelope.each_byte_once
            if ordered and self._lost_between(previous, number):
                apply_loss(self._connection, self._writer, applier.position)
            previous = number
            statement = self._reader.statement(self._reader.footer(self._writer, number))
            applier.apply(number, statement)
        if applier.position == 0:
            return
        if applier.position <= self._state.position:
            raise DamagedError(
                f"pack {pack_name(self._writer, envelope.number)}: expected rows after epoch "
                f"{epoch_of(self._state.position)}, got epoch {envelope.epoch} again"
            )
        applier.finish()
        self._connection.change(
            "UPDATE packs SET position = ? WHERE writer = ? AND trans = ?",
            *(applier.position, self._writer, envelope.transaction),
        )
        self._state = self._state._replace(position=applier.position)

    def _lost_between(self, first: int, last: int) -> bool:
        found = self._connection.row(
            "SELECT 1 FROM lost WHERE writer = ? AND number > ? AND number < ?",
            *(self._writer, first, last),
        )
        return found is not None

    def _lose(self, number: int, reason: str) -> None:
        """Record a lost pack; what it said is unknown from here on.

        Its epoch may have been a new one: nobody is granted that again, should it be put back.
        """
        at = self._state.position + 1
        apply_loss(self._connection, self._writer, at)
        epoch = self._state.epoch
        (newest,) = self._connection.row(
            "SELECT max(epoch) FROM lost WHERE writer = ?", self._writer
        )
        self._connection.change(
            "INSERT OR REPLACE INTO lost VALUES (?, ?, ?, ?, ?)",
            *(self._writer, number, at, max(epoch, newest or 0) + 1, reason),
        )
        log.warning("%s; run `timefs check` to see what it hurts", reason)
        self._state = self._state._replace(next_number=number + 1)
