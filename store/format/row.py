"""Rows: which file, where, when, and the place of the bytes; and how rows are written in a pack.

Defined here and only here: `RowKind`, the column layout `ROW` of docs/format/pack.md, block and
digest sizes, and the position that orders a machine's rows. Used by packs, transactions, the index
and the catalog. Arrays handed in are never kept; thread-safe.
"""

from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from store.history import FileKind

BLOCK_BYTES: Final = 4096
"""What a slot holds; a shorter piece is padded with zeros."""

DIGEST_BYTES: Final = 16
"""Keyed BLAKE3 of a slot's 4,096 bytes, cut to 128 bits."""

ROW_BLOCKS_MAX: Final = 256
"""A row of data covers at most this many slots, so that its check is cheap to prove."""

SEQUENCE_BITS: Final = 40

Rows = np.ndarray[tuple[int], np.dtype[np.void]]
Bytes = npt.NDArray[np.uint8]


class RowKind(IntEnum):
    """What a row says. Numbers are part of format 1."""

    DATA = 0
    """`length` bytes at `offset` are in consecutive slots from (`pack`, `slot`) on."""
    ZERO = 1
    """`length` bytes at `offset` are zeros."""
    RESIZE = 2
    """The file's size is `offset` from now on; bytes beyond it are gone."""
    FILE = 3
    """The file's name is names[`offset`], its kind `flags`."""
    DROP = 4
    """The file ends here."""
    INSTANT = 5
    """A state worth listing; `flags` 1 = fuzzy."""


INSTANT_FUZZY: Final = 1

FLAGS: Final = (0, 0, 0, 1, 0, INSTANT_FUZZY)
"""What `flags` may have set, by kind."""

FILE_KINDS: Final = (FileKind.CONTAINER, FileKind.DISK)
"""What `flags` says of a file: the number of a kind is its place here."""

ROW: Final = np.dtype(
    [
        ("kind", "<u1"),
        ("flags", "<u1"),
        ("file", "<u4"),
        ("offset", "<u8"),
        ("length", "<u8"),
        ("sequence", "<u8"),
        ("time_ns", "<i8"),
        ("pack", "<u4"),
        ("slot", "<u4"),
        ("check", "<u4"),
    ]
)


class Row(NamedTuple):
    """One row; the fields are those of `ROW`, in order."""

    kind: int
    flags: int
    file: int
    offset: int
    length: int
    sequence: int
    time_ns: int
    pack: int
    slot: int
    check: int


def position(epoch: int, sequence: int) -> int:
    """One number that orders all rows of a machine: epochs first, sequences within."""
    return epoch << SEQUENCE_BITS | sequence


def epoch_of(at: int) -> int:
    """The epoch of a position."""
    return at >> SEQUENCE_BITS


def sequence_of(at: int) -> int:
    """The sequence of a position."""
    return at & ((1 << SEQUENCE_BITS) - 1)


def blocks_of(length: int) -> int:
    """Slots that `length` bytes take."""
    return -(-length // BLOCK_BYTES)
