"""Budget: what one request may cost before it is given up.

Defined here and only here: `Budget`, `budgeted` and `spend`. A door (the mount) runs each request
under a budget; whatever loops over what a guest claims (images, parsers) spends from it, and knows
nothing of who set it. Without one, spending costs nothing and refuses nothing. A budget belongs to
the thread that serves the request; only `cancel` may be called from another.
"""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from time import thread_time
from typing import Final

from store.errors import CostError, InterruptError

CHECK_BYTES: Final = 1 << 16
"""The processor's clock is looked at after this much was spent, not each time."""


class Budget:
    """Of one request: processor time of its thread, and bytes of structures that it reads."""

    __slots__ = ("_deadline", "_left_bytes", "_limits", "_next_check_bytes", "cancelled")

    def __init__(self, seconds: float, size_bytes: int) -> None:
        self._limits: Final = (seconds, size_bytes)
        self._deadline = thread_time() + seconds
        self._left_bytes = size_bytes
        self._next_check_bytes = size_bytes
        self.cancelled = False

    def cancel(self) -> None:
        """Whoever asked no longer waits for the answer: give up at the next spending."""
        self.cancelled = True

    def spend(self, size_bytes: int) -> None:
        """Raises as `spend` of this module does."""
        self._left_bytes -= size_bytes
        if self._left_bytes > self._next_check_bytes and not self.cancelled:
            return
        self._next_check_bytes = self._left_bytes - CHECK_BYTES
        if self.cancelled:
            raise InterruptError("given up: whoever asked no longer waits")
        seconds, most_bytes = self._limits
        if self._left_bytes < 0:
            raise CostError(
                f"given up: one request may read {most_bytes >> 20} MiB of a volume's structures, "
                "this one needs more"
            )
        if thread_time() > self._deadline:
            raise CostError(f"given up after {seconds:g} s of computing for one request")


class _Current(threading.local):
    budget: Budget | None = None


_current: Final = _Current()


@contextmanager
def budgeted(budget: Budget) -> Generator[None]:
    """Work of this thread spends from `budget`."""
    before = _current.budget
    _current.budget = budget
    try:
        yield
    finally:
        _current.budget = before


def spend(size_bytes: int) -> None:
    """Say that a structure of that many bytes is read, or a step of that weight taken.

    About 1,000 bytes for each 10 µs of work are right where there are no bytes to count.

    Raises:
        CostError: the request's budget is used up.
        InterruptError: whoever asked no longer waits.
    """
    budget = _current.budget
    if budget is not None:
        budget.spend(size_bytes)
