"""Stretches: rising numbers as unbroken runs. A pure function; thread-safe."""

import numpy as np
import numpy.typing as npt


def stretches(numbers: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Rising numbers as (first, last + 1) of each unbroken stretch."""
    if not numbers.size:
        return []
    breaks = np.flatnonzero(np.diff(numbers) != 1)
    firsts = numbers[np.r_[0, breaks + 1]].tolist()
    lasts = numbers[np.r_[breaks, numbers.size - 1]].tolist()
    return [(first, last + 1) for first, last in zip(firsts, lasts, strict=True)]
