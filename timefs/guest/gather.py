"""Records of one size that lie anywhere in an image, read together: neighbours at once.

Defined here and only here: `gather`. Used by the surveys of guest.ext and guest.xfs. Stateless and
thread-safe.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from store.errors import CorruptError, DamagedError
from store.image import Image

SKIPPED_BYTES_MAX: Final = 4096
"""Read in vain rather than reading what lies on both sides of it apart."""

SPAN_BYTES_MAX: Final = 1 << 20


def gather(
    image: Image, places: NDArray[np.int64], record_bytes: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The record at each place, as rows, and whether it could be read; what could not is zeros.

    Places are multiples of `record_bytes`; one below zero stands for no record.
    """
    records = np.zeros((len(places), record_bytes), np.uint8)
    there = (places >= 0) & (places <= image.size - record_bytes)
    order = np.argsort(places, kind="stable")
    order = order[there[order]]
    near = places[order]
    apart = np.diff(near) > SKIPPED_BYTES_MAX + record_bytes
    apart |= np.diff(near // SPAN_BYTES_MAX) != 0
    for part in np.split(order, np.flatnonzero(apart) + 1):
        if not len(part):
            continue
        start = int(places[part[0]])
        span = places[part] - start
        try:
            content = image.read(start, int(span[-1]) + record_bytes)
        except (CorruptError, DamagedError):
            there[part] = False
        else:
            rows = np.frombuffer(content, np.uint8).reshape(-1, record_bytes)
            records[part] = rows[span // record_bytes]
    return records, there
