"""The pack: the immutable object that all truth is in. Format 2, docs/format/pack.md.

Defined here and only here: the envelope at both ends of a pack, its frame table, and how they
are built and parsed. Used by transactions (build), the pack reader and the index (parse).
The small parts are stored twice, so that one flipped bit outside the frames costs nothing. Values
are immutable; thread-safe.
"""

import struct
from typing import Final, NamedTuple

import numpy as np
from blake3 import blake3

from store.errors import DamagedError, UnsupportedError
from store.format.digest import checksum
from store.format.frame import FRAME, Frame
from store.format.limits import (
    EPOCH_MAX,
    FRAME_BLOCKS_MAX,
    SLOTS_MAX,
    STATEMENT_BYTES_MAX,
    WRITER_MAX,
    WRITER_MIN,
)
from store.format.row import DIGEST_BYTES

FORMAT: Final = 2
MAGIC: Final = b"timefsPK"
TYPE_PACK: Final = 0
CIPHER_NONE: Final = 0
LAST_PART: Final = 1
"""Envelope flag: the transaction ends here."""

EACH_BYTE_ONCE: Final = 2
"""Envelope flag: no two rows of the transaction cover one byte of a file."""
FLAGS: Final = LAST_PART | EACH_BYTE_ONCE

FINGERPRINT_BYTES: Final = 32

ENVELOPE: Final = struct.Struct("<8sHBBII16sIIQ16sQIIIQQQ32sI32sQ")


class Envelope(NamedTuple):
    """What a pack is and where its parts lie; the same bytes begin and end it."""

    magic: bytes
    format: int
    type: int
    cipher: int
    flags: int
    part: int
    repository: bytes
    writer: int
    number: int
    epoch: int
    transaction: bytes
    frames_bytes: int
    digests_bytes: int
    table_bytes: int
    statement_bytes: int
    digests_checksum: int
    table_checksum: int
    statement_checksum: int
    content: bytes
    """Fingerprint of digests, frame table and statement, one after the other."""
    previous_number: int
    previous: bytes
    """Number and fingerprint of the pack before it: what makes a line of a writer's packs."""
    checksum: int

    @property
    def fingerprint(self) -> bytes:
        """What tells this pack from every other: BLAKE3 of the envelope."""
        return blake3(ENVELOPE.pack(*self)).digest()

    @property
    def last(self) -> bool:
        """Whether the transaction ends with this pack."""
        return bool(self.flags & LAST_PART)

    @property
    def each_byte_once(self) -> bool:
        """Whether the order of the transaction's rows does not matter."""
        return bool(self.flags & EACH_BYTE_ONCE)

    @property
    def digests_offset(self) -> int:
        return ENVELOPE.size + self.frames_bytes

    @property
    def table_offset(self) -> int:
        return self.digests_offset + self.digests_bytes

    @property
    def footer_bytes(self) -> int:
        """One copy of the frame table and the statement."""
        return self.table_bytes + self.statement_bytes

    @property
    def total_bytes(self) -> int:
        return self.table_offset + 2 * self.footer_bytes + ENVELOPE.size


class Head(NamedTuple):
    """A pack of a line, by its number and what tells it from every other of that number."""

    number: int
    fingerprint: bytes


NO_HEAD: Final = Head(0, bytes(FINGERPRINT_BYTES))
"""What comes before a writer's first pack."""


class PackIdentity(NamedTuple):
    """Whose pack it is and which part of what."""

    repository: bytes
    writer: int
    number: int
    epoch: int
    transaction: bytes
    part: int
    last: bool
    previous: "Head"
    """The newest pack before it that is not lost."""
    each_byte_once: bool = False


def pack_name(writer: int, number: int) -> str:
    """The object's name."""
    return f"packs/{writer:08x}/{number:010d}"


def build_pack(
    identity: PackIdentity, frames: list[Frame], digests: bytes, statement: bytes
) -> bytes:
    """The whole object's bytes."""
    table = np.array(
        [(len(f.stored), f.blocks, f.codec, f.checksum) for f in frames], dtype=FRAME
    ).tobytes()
    fields = Envelope(
        magic=MAGIC,
        format=FORMAT,
        type=TYPE_PACK,
        cipher=CIPHER_NONE,
        flags=LAST_PART * identity.last | EACH_BYTE_ONCE * identity.each_byte_once,
        part=identity.part,
        repository=identity.repository,
        writer=identity.writer,
        number=identity.number,
        epoch=identity.epoch,
        transaction=identity.transaction,
        frames_bytes=sum(len(frame.stored) for frame in frames),
        digests_bytes=len(digests),
        table_bytes=len(table),
        statement_bytes=len(statement),
        digests_checksum=checksum(digests),
        table_checksum=checksum(table),
        statement_checksum=checksum(statement),
        content=blake3(digests + table + statement).digest(),
        previous_number=identity.previous.number,
        previous=identity.previous.fingerprint,
        checksum=0,
    )
    unsigned = ENVELOPE.pack(*fields)[:-8]
    envelope = unsigned + checksum(unsigned).to_bytes(8, "little")
    stored = [frame.stored for frame in frames]
    return b"".join([envelope, *stored, digests, table, statement, table, statement, envelope])


def fingerprint_of(content: bytes) -> bytes:
    """The fingerprint of a whole pack's bytes."""
    return blake3(content[: ENVELOPE.size]).digest()


def parse_envelope(content: bytes, where: str) -> Envelope:
    """An envelope's fields, verified.

    Raises:
        DamagedError: the bytes are not those that were written.
        UnsupportedError: a newer timefs wrote them.
    """
    if len(content) != ENVELOPE.size:
        raise DamagedError(f"{where}: envelope: expected {ENVELOPE.size} bytes, got {len(content)}")
    envelope = Envelope(*ENVELOPE.unpack(content))
    if envelope.magic != MAGIC:
        raise DamagedError(f"{where}: envelope: expected {MAGIC!r}, got {envelope.magic!r}")
    got = checksum(content[:-8])
    if got != envelope.checksum:
        raise DamagedError(
            f"{where}: envelope checksum: expected {envelope.checksum:016x}, got {got:016x}"
        )
    known = (FORMAT, TYPE_PACK, CIPHER_NONE)
    if envelope[1:4] != known or envelope.flags & ~FLAGS:
        raise UnsupportedError(
            f"{where}: expected format {FORMAT}, a pack without encryption, got format "
            f"{envelope.format} type {envelope.type} cipher {envelope.cipher} flags "
            f"{envelope.flags:#x}; use a newer timefs"
        )
    _check_claims(envelope, where)
    return envelope


def _check_claims(envelope: Envelope, where: str) -> None:
    """Let no pack claim what none may; asked before anything is allocated for it."""
    for what, got, least, most in (
        ("writer", envelope.writer, WRITER_MIN, WRITER_MAX),
        ("epoch", envelope.epoch, 0, EPOCH_MAX),
        ("part", envelope.part, 1, 1 << 32),
        ("bytes of digests", envelope.digests_bytes, 0, SLOTS_MAX * DIGEST_BYTES),
        ("bytes of its frame table", envelope.table_bytes, 0, SLOTS_MAX * FRAME.itemsize),
        ("bytes of its statement", envelope.statement_bytes, 0, STATEMENT_BYTES_MAX),
    ):
        if not least <= got <= most:
            raise DamagedError(f"{where}: {what}: expected {least} to {most}, got {got}")


def decode_table(
    content: bytes, envelope: Envelope, where: str
) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """The frame table, whose checksum was right, as `FRAME` rows.

    Raises:
        DamagedError: it contradicts the envelope.
    """
    if len(content) % FRAME.itemsize:
        raise DamagedError(f"{where}: frame table: {len(content)} bytes are not whole rows")
    table = np.frombuffer(content, FRAME)
    if (table["blocks"] > FRAME_BLOCKS_MAX).any() or (table["blocks"] == 0).any():
        raise DamagedError(f"{where}: frame table: expected 1 to {FRAME_BLOCKS_MAX} blocks a frame")
    stored = int(table["stored_bytes"].astype(np.uint64).sum())
    blocks = int(table["blocks"].astype(np.uint64).sum())
    if stored != envelope.frames_bytes or blocks * DIGEST_BYTES != envelope.digests_bytes:
        raise DamagedError(f"{where}: frame table: it contradicts the envelope")
    return table
