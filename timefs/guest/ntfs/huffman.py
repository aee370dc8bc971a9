"""What two compressions share: Huffman codes as tables, and copies of what was decoded before.

Defined here and only here: `code_table` and `copy`. Used by `xpress` and `lzx`. Pure.
"""

import numpy as np

from store.errors import CorruptError


def code_table(lengths: list[int], bits_max: int, where: str) -> tuple[list[int], int]:
    """For every value of the next n bits `symbol << 5 | length`, and n, the longest code's length.

    Codes are canonical: shorter ones first, equal ones in order of their symbols. The table of a
    code without symbols is empty; one that is not complete is refused: no compressor makes it.

    Raises:
        CorruptError: the lengths make up no code.
    """
    known = np.array(lengths, dtype=np.int64)
    bits = int(known.max())
    if bits == 0:
        return [], 1
    symbols = np.flatnonzero(known)
    order = symbols[np.argsort(known[symbols], kind="stable")]
    spans = 1 << (bits - known[order])
    if bits > bits_max or int(spans.sum()) != 1 << bits:
        raise CorruptError(f"{where}: expected a complete code, got other lengths")
    return np.repeat(order << 5 | known[order], spans).tolist(), bits


def copy(out: bytearray, distance: int, length: int) -> None:
    """Append `length` bytes from `distance` back; IndexError if that is before the start."""
    start = len(out) - distance
    if start < 0:
        raise IndexError
    if distance >= length:
        out += out[start : start + length]
    else:
        out += (out[start:] * (length // distance + 1))[:length]
