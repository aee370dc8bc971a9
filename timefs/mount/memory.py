"""Giving memory back to the system that Python has freed.

Defined here and only here: `give_back`. Used where very much comes and goes. Any thread.

Between frames that are kept, the C library holds on to what was freed: half of what a mount took
after a million names.
"""

import ctypes
from functools import cache


@cache
def _trim() -> "ctypes._NamedFuncPointer | None":  # pyright: ignore[reportPrivateUsage] - its only name
    """glibc's; other C libraries have none, or give back by themselves."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Ten milliseconds of work in a mount that is full."""
    trim = _trim()
    if trim is not None:
        trim(0)
