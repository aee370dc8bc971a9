"""The statement: the part of a pack that says what its blocks are. docs/format/pack.md.

Defined here and only here: rows, pack references and names as bytes, and back, within limits. Used
by whoever writes packs, the pack reader and the index. Values are immutable; thread-safe.
"""

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import zstandard

from store.errors import DamagedError, UnsupportedError
from store.format.columns import Numbers, decode_column, encode_column
from store.format.limits import (
    FILE_BYTES_MAX,
    NAME_BYTES_MAX,
    NAMES_BYTES_MAX,
    NAMES_MAX,
    REFERENCES_MAX,
    ROWS_MAX,
    SEQUENCE_MAX,
    STATEMENT_BYTES_MAX,
    WRITER_MAX,
    WRITER_MIN,
)
from store.format.row import (
    BLOCK_BYTES,
    FLAGS,
    ROW,
    ROW_BLOCKS_MAX,
    RowKind,
    Rows,
)

STATEMENT: Final = struct.Struct("<IIII")
PACK_REFERENCE: Final = struct.Struct("<II")
NAME: Final = struct.Struct("<H")

MICROSECOND_NS: Final = 1000

_COLUMNS: Final = (
    "kind", "flags", "file", "length", "offset", "sequence", "time_ns", "pack", "slot", "check",
)  # fmt: skip


class StatementHead(NamedTuple):
    """How many of each follow in a statement."""

    rows: int
    packs: int
    names: int
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


def encode_statement(rows: Rows, packs: Sequence[PackReference], names: Sequence[str]) -> bytes:
    """The statement, compressed."""
    stored = [name.encode(errors="surrogateescape") for name in names]
    text = b"".join(NAME.pack(len(name)) + name for name in stored)
    head = STATEMENT.pack(len(rows), len(packs), len(names), len(text))
    references = b"".join(PACK_REFERENCE.pack(*pack) for pack in packs)
    return zstandard.compress(head + _encode_rows(rows) + references + text, 3)


def decode_statement(stored: bytes, where: str) -> Statement:
    """The statement of `encode_statement`, whose checksum was right.

    Raises:
        DamagedError: it contradicts itself or claims more than a pack may.
        UnsupportedError: a newer timefs wrote it.
    """
    where = f"{where}: statement"
    plain = _decompressed(stored, where)
    if len(plain) < STATEMENT.size:
        raise DamagedError(f"{where}: it is cut short")
    head = StatementHead(*STATEMENT.unpack_from(plain))
    limits = (ROWS_MAX, REFERENCES_MAX, NAMES_MAX, NAMES_BYTES_MAX)
    if head.names < 1 or any(got > most for got, most in zip(head, limits, strict=True)):
        raise DamagedError(f"{where}: expected at most {limits}, got {tuple(head)}")
    rows, rest = _decode_rows(plain[STATEMENT.size :], head.rows, where)
    packs_bytes = head.packs * PACK_REFERENCE.size
    if len(rest) != packs_bytes + head.names_bytes:
        raise DamagedError(f"{where}: it is cut short")
    packs = [PackReference(*pack) for pack in PACK_REFERENCE.iter_unpack(rest[:packs_bytes])]
    if any(not WRITER_MIN <= pack.writer <= WRITER_MAX for pack in packs):
        raise DamagedError(f"{where}: it refers to a pack of a writer that none can be")
    names = _decode_names(rest[packs_bytes:], head.names, where)
    _check_rows(rows, head, where)
    return Statement(rows, packs, names)


def _decompressed(stored: bytes, where: str) -> memoryview:
    """Asks for the size first: zstd would believe whatever a frame claims."""
    try:
        size = zstandard.frame_content_size(stored)
        if not 0 <= size <= STATEMENT_BYTES_MAX:
            raise DamagedError(
                f"{where}: expected at most {STATEMENT_BYTES_MAX} bytes decoded, got {size}"
            )
        return memoryview(zstandard.ZstdDecompressor().decompress(stored))
    except zstandard.ZstdError as error:
        raise DamagedError(f"{where}: {error}") from error


def _column(rows: Rows, name: str) -> Numbers:
    return rows[name].astype(np.int64)


def _expected(name: str, columns: dict[str, Numbers]) -> Numbers | int:
    """How much a number is expected to rise from the row before, by what is known of that row."""
    if name == "sequence":
        return 1
    if name == "offset":
        return columns["length"][:-1] * (columns["kind"][:-1] <= RowKind.ZERO)
    if name == "slot":
        blocks = -(-columns["length"][:-1] // BLOCK_BYTES)
        return blocks * (columns["kind"][:-1] == RowKind.DATA)
    return 0


def _encode_rows(rows: Rows) -> bytes:
    columns = {name: _column(rows, name) for name in _COLUMNS}
    parts: list[bytes] = []
    for name, column in columns.items():
        rises = column.copy()
        if name != "check":  # which has nothing in common with its neighbour
            rises[1:] -= column[:-1] + _expected(name, columns)
        whole = name == "time_ns" and not (rises % MICROSECOND_NS).any()
        parts.append(encode_column(rises, MICROSECOND_NS if whole else 1))
    return b"".join(parts)


def _decode_rows(content: memoryview, count: int, where: str) -> tuple[Rows, memoryview]:
    columns: dict[str, Numbers] = {}
    rows = np.zeros(count, ROW)
    for name in _COLUMNS:
        rises, content = decode_column(content, count, where)
        if name != "check":
            rises[1:] += _expected(name, columns)
            rises = np.cumsum(rises)
        columns[name] = rises
        rows[name] = rises
        if (_column(rows, name) != rises).any():
            raise DamagedError(f"{where}: a row's {name} is out of range")
    return rows, content


def _decode_names(content: memoryview, count: int, where: str) -> list[str]:
    names: list[str] = []
    at = 0
    while len(names) < count and at + NAME.size <= len(content):
        (length,) = NAME.unpack_from(content, at)
        name = bytes(content[at + NAME.size : at + NAME.size + length])
        if length > NAME_BYTES_MAX or len(name) < length or b"\0" in name:
            raise DamagedError(f"{where}: a name of {length} bytes is not one")
        names.append(name.decode(errors="surrogateescape"))
        at += NAME.size + length
    if len(names) < count or at != len(content):
        raise DamagedError(f"{where}: expected {count} names, got {len(names)}")
    return names


def _check_rows(rows: Rows, head: StatementHead, where: str) -> None:
    """Let no row claim what none may.

    Raises:
        UnsupportedError: a kind or flag of a newer timefs.
        DamagedError: anything else.
    """
    kinds, flags = rows["kind"], rows["flags"]
    unknown = kinds >= len(FLAGS)
    known_flags = np.array(FLAGS, np.uint8)[np.where(unknown, 0, kinds)]
    if unknown.any() or (flags & ~known_flags).any():
        raise UnsupportedError(
            f"{where}: rows of a kind that this version does not know; use a newer timefs"
        )
    if (np.diff(rows["sequence"].astype(np.int64)) <= 0).any():
        raise DamagedError(f"{where}: expected rows in the order of their sequences")
    offset, length = rows["offset"], rows["length"]
    data = kinds == RowKind.DATA
    named = kinds == RowKind.FILE
    wrong = {
        "offset": offset > FILE_BYTES_MAX,
        "length": length > np.where(data, ROW_BLOCKS_MAX * BLOCK_BYTES, FILE_BYTES_MAX),
        "sequence": rows["sequence"] > SEQUENCE_MAX,
        "pack": rows["pack"] > head.packs,
        "name": named & ((offset >= head.names) | (length > head.names)),
    }
    for what, rows_wrong in wrong.items():
        if rows_wrong.any():
            raise DamagedError(f"{where}: a row's {what} is out of range")
