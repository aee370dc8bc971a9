"""The pack: the immutable object that all truth is in. Format 1, docs/format/pack.md.

Defined here and only here: the envelope at both ends of a pack, the statement (rows and names), and
how both are built and parsed. Used by transactions (build), the pack reader and the index (parse).
The small parts are stored twice, so that one flipped bit outside the frames costs nothing. Values
are immutable; thread-safe.
"""

import json
import struct
from typing import Final, NamedTuple

import numpy as np
import zstandard

from store.errors import DamagedError, UnsupportedError
from store.format.digest import checksum
from store.format.frame import FRAME, Frame
from store.format.row import DIGEST_BYTES, ROW, RowKind, Rows, decode_rows, encode_rows

FORMAT: Final = 1
MAGIC: Final = b"timefsPK"
CIPHER_NONE: Final = 0
LAST_PART: Final = 1
"""Envelope flag: the transaction ends here."""

EACH_BYTE_ONCE: Final = 2
"""Envelope flag: no two rows of the transaction cover one byte of a file."""
STATEMENT_BYTES_MAX: Final = 1 << 30

ENVELOPE: Final = struct.Struct("<8sHBBI16sIIQ16sQIIIQQQQ")
STATEMENT: Final = struct.Struct("<III")
PACK_REFERENCE: Final = struct.Struct("<II")


class Envelope(NamedTuple):
    """What a pack is and where its parts lie; the same bytes begin and end it."""

    magic: bytes
    format: int
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
    checksum: int

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


class StatementHead(NamedTuple):
    """How many of each follow in a statement."""

    rows: int
    packs: int
    names_bytes: int


class PackReference(NamedTuple):
    """A pack that rows refer to; number 0 of `Row.pack` is the pack itself."""

    writer: int
    number: int


class Statement(NamedTuple):
    """What a pack says: rows, the packs they refer to, and names (the machine's first)."""

    rows: Rows
    packs: list[PackReference]
    names: list[str]


class PackIdentity(NamedTuple):
    """Whose pack it is and which part of what."""

    repository: bytes
    writer: int
    number: int
    epoch: int
    transaction: bytes
    part: int
    last: bool
    each_byte_once: bool = False


def pack_name(writer: int, number: int) -> str:
    """The object's name."""
    return f"packs/{writer:08x}/{number:010d}"


def encode_statement(rows: Rows, packs: list[PackReference], names: list[str]) -> bytes:
    """The statement, compressed."""
    text = json.dumps(names, ensure_ascii=True).encode()
    head = STATEMENT.pack(len(rows), len(packs), len(text))
    references = b"".join(PACK_REFERENCE.pack(*pack) for pack in packs)
    return zstandard.compress(head + encode_rows(rows) + references + text, 3)


def decode_statement(stored: bytes, where: str) -> Statement:
    """The statement of `encode_statement`, whose checksum was right.

    Raises:
        DamagedError: it contradicts itself.
    """
    try:
        plain = zstandard.ZstdDecompressor().decompress(stored, max_output_size=STATEMENT_BYTES_MAX)
        head = StatementHead(*STATEMENT.unpack_from(plain))
        rows_end = STATEMENT.size + head.rows * ROW.itemsize
        packs_end = rows_end + head.packs * PACK_REFERENCE.size
        rows = decode_rows(plain[STATEMENT.size : rows_end], head.rows, where)
        packs = [PackReference(*p) for p in PACK_REFERENCE.iter_unpack(plain[rows_end:packs_end])]
        names: list[str] = json.loads(plain[packs_end : packs_end + head.names_bytes])
    except (zstandard.ZstdError, struct.error, ValueError) as error:
        raise DamagedError(f"{where}: statement: {error}") from error
    named = rows["offset"][rows["kind"] == RowKind.FILE]
    if not names or (named >= len(names)).any() or (rows["pack"] > len(packs)).any():
        raise DamagedError(f"{where}: statement: a row refers to what it does not hold")
    return Statement(rows, packs, names)


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
        checksum=0,
    )
    unsigned = ENVELOPE.pack(*fields)[:-8]
    envelope = unsigned + checksum(unsigned).to_bytes(8, "little")
    stored = [frame.stored for frame in frames]
    return b"".join([envelope, *stored, digests, table, statement, table, statement, envelope])


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
    if envelope.format != FORMAT or envelope.cipher != CIPHER_NONE:
        raise UnsupportedError(
            f"{where}: expected format {FORMAT} without encryption, got format {envelope.format} "
            f"cipher {envelope.cipher}; use a newer timefs"
        )
    return envelope


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
    stored = int(table["stored_bytes"].astype(np.uint64).sum())
    blocks = int(table["blocks"].astype(np.uint64).sum())
    if stored != envelope.frames_bytes or blocks * DIGEST_BYTES != envelope.digests_bytes:
        raise DamagedError(f"{where}: frame table: it contradicts the envelope")
    return table
