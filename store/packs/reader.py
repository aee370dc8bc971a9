"""Reading packs: envelopes, statements, digests and decoded blocks, all verified.

Defined here and only here: `PackReader` with its bounded caches of frame tables and digests; the
decoded frames are in store.packs.frames. Used by the index, transactions, images of instants and
check. Thread-safe.
"""

import threading
from array import array
from collections import OrderedDict
from contextlib import suppress
from typing import Final, NamedTuple

import numpy as np

from store.errors import DamagedError, NotFoundError
from store.format.digest import checksum, digests_of, row_check
from store.format.keys import Keys
from store.format.pack import ENVELOPE, Envelope, decode_table, pack_name, parse_envelope
from store.format.row import BLOCK_BYTES, DIGEST_BYTES
from store.format.statement import Statement, decode_statement
from store.objects.backend import Backend
from store.packs.frames import CACHE_BYTES, FrameReader, FrameTable, missing

TABLES_FRAMES_MAX: Final = 1 << 20
"""Frames whose places are kept, 25 bytes each."""

DIGEST_PAGE: Final = 256
"""Digests that are read together to prove rows."""

MADE_TOGETHER: Final = 2048
"""Slots that are decoded at once to digest them."""

DIGEST_PAGES_MAX: Final = 2048
"""Such pages kept: 8 MiB."""


class Footer(NamedTuple):
    """The small parts of a pack."""

    envelope: Envelope
    table: bytes
    statement: bytes
    flaws: list[str]
    """What was wrong in one of two copies, a line each."""


class PackReader:
    """Reads what packs hold."""

    def __init__(
        self, backend: Backend, repository: bytes, keys: Keys, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.backend = backend
        self._keys = keys
        self._repository = repository
        self._lock = threading.Lock()
        self._tables: OrderedDict[tuple[int, int], FrameTable] = OrderedDict()
        self._tables_frames = 0
        self._digests: OrderedDict[tuple[int, int, int], bytes] = OrderedDict()
        self._frames = FrameReader(backend, cache_bytes)
        self.statistics = self._frames.statistics

    def clear(self) -> None:
        """Keep nothing that was read: other packs may have taken the names."""
        with self._lock:
            self._tables.clear()
            self._tables_frames = 0
            self._digests.clear()
        self._frames.clear()

    def footer(self, writer: int, number: int) -> Footer:
        """The envelope, frame table and statement of a pack, from whichever copy is whole.

        Raises:
            NotFoundError: there is no such pack.
            DamagedError: both copies of a part are wrong.
        """
        name = pack_name(writer, number)
        size = self.backend.size(name)
        flaws: list[str] = []
        envelope = self._envelope(name, writer, number, size, flaws)
        table = self._part(
            name, "frame table", envelope, 0, envelope.table_bytes, envelope.table_checksum, flaws
        )
        statement = self._part(
            name,
            "statement",
            envelope,
            envelope.table_bytes,
            envelope.statement_bytes,
            envelope.statement_checksum,
            flaws,
        )
        return Footer(envelope, table, statement, flaws)

    def envelope(self, writer: int, number: int) -> Envelope:
        """The envelope of a pack, from whichever copy is whole; raises as `footer` does."""
        name = pack_name(writer, number)
        self.backend.forget(name)  # another may have taken its place
        return self._envelope(name, writer, number, self.backend.size(name), [])

    def _envelope(
        self, name: str, writer: int, number: int, size: int, flaws: list[str]
    ) -> Envelope:
        if size < 2 * ENVELOPE.size:
            raise DamagedError(
                f"pack {name}: expected at least {2 * ENVELOPE.size} bytes, got {size}; "
                f"restore the pack from a copy of the repository"
            )
        found: Envelope | None = None
        error: DamagedError | None = None
        for offset in (size - ENVELOPE.size, 0):
            where = f"pack {name}: {'first' if offset == 0 else 'last'}"
            try:
                envelope = parse_envelope(self.backend.read(name, offset, ENVELOPE.size), where)
                self._identify(envelope, name, writer, number, size)
                found = found or envelope
            except DamagedError as damage:
                flaws.append(str(damage))
                error = damage
        if found is None:
            assert error is not None
            raise error
        return found

    def _identify(self, envelope: Envelope, name: str, writer: int, number: int, size: int) -> None:
        expected = (self._repository, writer, number, size)
        got = (envelope.repository, envelope.writer, envelope.number, envelope.total_bytes)
        if got != expected:
            raise DamagedError(
                f"pack {name}: expected writer {writer}, number {number}, {size} bytes of "
                f"repository {self._repository.hex()}, got {got[1]}, {got[2]}, {got[3]} of "
                f"{got[0].hex()}; put the right pack back from a copy of the repository"
            )

    def _part(  # noqa: PLR0913, PLR0917  # a part is exactly these
        self,
        name: str,
        what: str,
        envelope: Envelope,
        shift: int,
        length: int,
        expected: int,
        flaws: list[str],
    ) -> bytes:
        for copy in range(2):
            offset = envelope.table_offset + copy * envelope.footer_bytes + shift
            content = self.backend.read(name, offset, length)
            if checksum(content) == expected:
                return content
            flaws.append(f"pack {name}: {what}, copy {copy + 1} of 2: wrong checksum")
        raise DamagedError(f"pack {name}: {what}: both copies have a wrong checksum")

    def second_copies(self, footer: Footer) -> list[str]:
        """What is wrong with the second frame table and statement, a line each."""
        envelope = footer.envelope
        name = pack_name(envelope.writer, envelope.number)
        flaws: list[str] = []
        stored = self._read(
            name, envelope.table_offset + envelope.footer_bytes, envelope.footer_bytes
        )
        for what, content, whole in (
            ("frame table", stored[: envelope.table_bytes], footer.table),
            ("statement", stored[envelope.table_bytes :], footer.statement),
        ):
            if content != whole and not any(f"{what}, copy 1" in flaw for flaw in footer.flaws):
                flaws.append(f"pack {name}: {what}, copy 2 of 2: wrong checksum")
        return flaws

    def statement(self, footer: Footer) -> Statement:
        """What the pack says."""
        name = pack_name(footer.envelope.writer, footer.envelope.number)
        return decode_statement(footer.statement, f"pack {name}")

    def table(self, writer: int, number: int) -> FrameTable:
        """Where the pack's slots lie; kept."""
        key = (writer, number)
        with self._lock:
            table = self._tables.get(key)
            if table is not None:
                self._tables.move_to_end(key)
                return table
        try:
            table = frame_table(self.footer(writer, number))
        except NotFoundError as error:
            raise missing(pack_name(writer, number)) from error
        with self._lock:
            if key not in self._tables:
                self._tables[key] = table
                self._tables_frames += len(table.offsets)
                while self._tables_frames > TABLES_FRAMES_MAX and len(self._tables) > 1:
                    self._tables_frames -= len(self._tables.popitem(last=False)[1].offsets)
        return table

    def digests(self, writer: int, number: int, slot: int, count: int) -> bytes:
        """The digests of `count` slots from `slot` on, as stored: only a check proves them."""
        envelope = self.table(writer, number).envelope
        if (slot + count) * DIGEST_BYTES > envelope.digests_bytes:
            raise DamagedError(
                f"pack {pack_name(writer, number)}: slots {slot} to {slot + count}: expected "
                f"at most {envelope.digests_bytes // DIGEST_BYTES}"
            )
        return self._read(
            pack_name(writer, number),
            envelope.digests_offset + slot * DIGEST_BYTES,
            count * DIGEST_BYTES,
        )

    def _read(self, name: str, offset: int, length: int) -> bytes:
        """A range of a pack that was there a moment ago."""
        try:
            return self.backend.read(name, offset, length)
        except NotFoundError as error:
            raise missing(name) from error

    def all_digests(self, writer: int, number: int) -> bytes:
        """Every digest of a pack, verified.

        Raises:
            DamagedError: the digests are not those that were written.
        """
        envelope = self.table(writer, number).envelope
        name = pack_name(writer, number)
        digests = self._read(name, envelope.digests_offset, envelope.digests_bytes)
        if checksum(digests) != envelope.digests_checksum:
            raise DamagedError(f"pack {name}: digests: wrong checksum")
        return digests

    def whole_digests(self, writer: int, number: int) -> bytes:
        """Every digest of a pack, made from its blocks if the stored ones are damaged.

        Nothing if the blocks are damaged too: no digest of the pack can be trusted then.
        """
        try:
            return self.all_digests(writer, number)
        except DamagedError:
            slots = self.table(writer, number).first_slots[-1]
            with suppress(DamagedError):
                return b"".join(
                    self.made_digests(writer, number, first, min(MADE_TOGETHER, slots - first))
                    for first in range(0, slots, MADE_TOGETHER)
                )
            return b""

    def made_digests(self, writer: int, number: int, slot: int, count: int) -> bytes:
        """The digests of `count` slots from `slot` on, made from the decoded blocks."""
        content = memoryview(bytearray(count * BLOCK_BYTES))
        self.read_into(writer, number, slot * BLOCK_BYTES, content)
        return digests_of(self._keys.digest, content, range(count))

    def prove(self, writer: int, number: int, slot: int, count: int, check: int) -> None:
        """Prove that a row's check belongs to these slots.

        Where the stored digests contradict it, those of the blocks themselves decide, so that a
        flipped bit among the digests hurts no read.

        Raises:
            DamagedError: it does not: the place or the check is wrong.
        """
        got = row_check(self._kept_digests(writer, number, slot, count))
        if got != check and row_check(self.made_digests(writer, number, slot, count)) != check:
            raise DamagedError(
                f"pack {pack_name(writer, number)}: slots {slot} to {slot + count}: row check: "
                f"expected {check:08x}, got {got:08x}; run `timefs check`"
            )

    def _kept_digests(self, writer: int, number: int, slot: int, count: int) -> bytes:
        """What `digests` gives, from whole pages of them; kept, for neighbours are asked next."""
        first, last = slot // DIGEST_PAGE, (slot + count - 1) // DIGEST_PAGE
        pages = [self._digest_page(writer, number, page) for page in range(first, last + 1)]
        start = (slot - first * DIGEST_PAGE) * DIGEST_BYTES
        found = b"".join(pages)[start : start + count * DIGEST_BYTES]
        if len(found) < count * DIGEST_BYTES:
            return self.digests(writer, number, slot, count)  # which says what is wrong
        return found

    def _digest_page(self, writer: int, number: int, page: int) -> bytes:
        key = (writer, number, page)
        with self._lock:
            kept = self._digests.get(key)
            if kept is not None:
                self._digests.move_to_end(key)
                return kept
        envelope = self.table(writer, number).envelope
        slots = envelope.digests_bytes // DIGEST_BYTES
        first = page * DIGEST_PAGE
        count = max(0, min(DIGEST_PAGE, slots - first))
        content = self.digests(writer, number, first, count) if count else b""
        with self._lock:
            self._digests[key] = content
            if len(self._digests) > DIGEST_PAGES_MAX:
                self._digests.popitem(last=False)
        return content

    def read_into(self, writer: int, number: int, address: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of consecutive slots; `address` is slot x 4096 + offset.

        Raises:
            DamagedError: a frame's stored bytes are wrong or missing.
        """
        table = self.table(writer, number)
        first_slots = table.first_slots
        if address + len(buffer) > first_slots[-1] * BLOCK_BYTES:
            raise DamagedError(
                f"pack {table.name}: bytes {address} to {address + len(buffer)}: "
                f"expected at most {first_slots[-1] * BLOCK_BYTES}"
            )
        if buffer:
            self._frames.read_into(table, address, buffer)


def frame_table(footer: Footer) -> FrameTable:
    """The frame table of a footer, with slots and offsets added up."""
    envelope = footer.envelope
    name = pack_name(envelope.writer, envelope.number)
    table = decode_table(footer.table, envelope, f"pack {name}")
    stored = table["stored_bytes"].astype(np.uint64)
    slots = np.r_[0, np.cumsum(table["blocks"], dtype=np.uint32)]
    return FrameTable(
        name,
        envelope,
        array("I", slots.astype(np.uint32).tobytes()),
        array("Q", (ENVELOPE.size + np.cumsum(stored) - stored).astype(np.uint64).tobytes()),
        array("I", table["stored_bytes"].tobytes()),
        table["codec"].tobytes(),
        array("Q", table["checksum"].tobytes()),
    )
