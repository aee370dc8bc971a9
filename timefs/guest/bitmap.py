"""Sector bitmaps: which sectors of a block a differencing disk has itself.

Defined here and only here: `bit_runs`. Used by timefs.guest.vhd and timefs.guest.vhdx, whose bits
lie in opposite order within a byte. Pure functions.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import numpy as np


def bit_runs(
    bitmap: bytes, first: int, count: int, order: Literal["big", "little"]
) -> Iterator[tuple[bool, int, int]]:
    """(set, first, count) of the runs of equal bits in `[first, first + count)`.

    The bitmap must reach so far; `order` is that of the bits within a byte.
    """
    if count <= 0:
        return
    start = first // 8
    content = bitmap[start : (first + count + 7) // 8]
    for byte in (0x00, 0xFF):  # as they mostly are
        if content.count(byte) == len(content):
            yield byte > 0, first, count
            return
    bits = np.unpackbits(np.frombuffer(content, np.uint8), bitorder=order)[first - start * 8 :][
        :count
    ]
    edges = [0, *(np.flatnonzero(np.diff(bits)) + 1).tolist(), count]
    for at, end in pairwise(edges):
        yield bool(bits[at]), first + at, end - at
