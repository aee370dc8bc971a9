"""Columns of numbers in few bytes: differences, without common zeros, split into planes of bytes.

Defined here and only here: `encode_column` and `decode_column`, docs/format/pack.md. Used by the
statement. What neighbours have in common becomes zeros, which zstd then makes small. Stateless.
"""

import struct
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from store.errors import DamagedError

COLUMN: Final = struct.Struct("<BBH")

SHIFT_MAX: Final = 63
SCALE_MAX: Final = 1000
WIDTH_MAX: Final = 8

Numbers = npt.NDArray[np.int64]


class ColumnHead(NamedTuple):
    """How a column's numbers are kept."""

    shift: int
    width: int
    scale: int


def encode_column(numbers: Numbers, scale: int = 1) -> bytes:
    """Signed numbers, which `scale` divides."""
    numbers = numbers // scale
    shift = _common_zeros(numbers)
    shifted = numbers >> shift
    folded = ((shifted << 1) ^ (shifted >> 63)).astype(np.uint64)  # small ones of either sign
    most = int(folded.max()) if folded.size else 0
    width = -(-most.bit_length() // 8)
    planes = folded.view(np.uint8).reshape(-1, 8)[:, :width].T
    return COLUMN.pack(shift, width, scale) + planes.tobytes()


def _common_zeros(numbers: Numbers) -> int:
    together = int(np.bitwise_or.reduce(numbers)) if numbers.size else 0
    return (together & -together).bit_length() - 1 if together else 0


def decode_column(content: memoryview, count: int, where: str) -> tuple[Numbers, memoryview]:
    """The numbers of `encode_column`, and what follows them.

    Raises:
        DamagedError: there are not that many.
    """
    if len(content) < COLUMN.size:
        raise DamagedError(f"{where}: a column is cut short")
    shift, width, scale = ColumnHead(*COLUMN.unpack_from(content))
    end = COLUMN.size + width * count
    if shift > SHIFT_MAX or width > WIDTH_MAX or not 0 < scale <= SCALE_MAX or end > len(content):
        raise DamagedError(f"{where}: a column of {count} numbers of {width} bytes is cut short")
    planes = np.zeros((count, WIDTH_MAX), np.uint8)
    planes[:, :width] = np.frombuffer(content[COLUMN.size : end], np.uint8).reshape(width, count).T
    folded = planes.view(np.uint64).reshape(count)
    shifted = (folded >> np.uint64(1)).astype(np.int64) ^ -(folded & np.uint64(1)).astype(np.int64)
    return (shifted << shift) * scale, content[end:]
