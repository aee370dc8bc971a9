"""Budget: what one request may cost before it is given up.

Defined here and only here: `Budget` and the functions that spend from one. A door (the mount) runs
each request under a budget; whatever loops over what a guest claims (images, parsers) spends from
it, and knows nothing of who set it. Without one, spending costs nothing and refuses nothing. A
budget belongs to the thread that serves the request; only `cancel` may be called from another.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import thread_time
from typing import Final, TypeVar

from store.errors import CostError, InterruptError

REQUEST_SECONDS: Final = 5.0
"""Of the processor. Each operation on a large volume that is what it says takes less than 2."""

REQUEST_BYTES: Final = 256 << 20

CHECK_BYTES: Final = 1 << 16
"""The processor's clock is looked at after this much was spent, not each time."""

T = TypeVar("T")


class Budget:
    """Of one request: processor time of its thread, and bytes of structures that it reads."""

    __slots__ = ("_above", "_left_bytes", "_limits", "_next_check_bytes", "_start", "cancelled")

    def __init__(
        self,
        seconds: float = REQUEST_SECONDS,
        size_bytes: int = REQUEST_BYTES,
        above: "Budget | None" = None,
    ) -> None:
        """What is spent is spent from `above`, too. Time counts from the first spending."""
        self._limits = (seconds, size_bytes)
        self._above = above
        self.renew()

    def renew(self) -> None:
        """Nothing is spent."""
        self._start: float | None = None  # most requests spend nothing and need no clock
        self._left_bytes = self._next_check_bytes = self._limits[1]
        self.cancelled = False

    def cancel(self) -> None:
        """Whoever asked no longer waits for the answer: give up at the next spending."""
        self.cancelled = True

    def spend(self, size_bytes: int) -> None:
        """Raises as `spend` of this module does; once it did, each time again."""
        if self._above is not None:
            self._above.spend(size_bytes)
        self._left_bytes -= size_bytes
        if self._left_bytes <= self._next_check_bytes or self.cancelled:
            self.check()

    def check(self) -> float:
        """Look at every limit; answers the seconds that were used. Raises as `spend` does."""
        if self.cancelled:
            raise InterruptError("given up: whoever asked no longer waits")
        if self._start is None:
            self._start = thread_time()
        seconds, most_bytes = self._limits
        if self._left_bytes < 0:
            raise CostError(
                f"given up: one request may read {most_bytes >> 20} MiB of a volume's structures, "
                "this one needs more"
            )
        used_seconds = thread_time() - self._start
        if used_seconds > seconds:
            raise CostError(f"given up after {seconds:g} s of computing for one request")
        self._next_check_bytes = max(self._left_bytes - CHECK_BYTES, -1)
        return used_seconds


class _Current(threading.local):
    budget: Budget | None = None


_current: Final = _Current()


def serve_under(budget: Budget | None) -> None:
    """From now on work of this thread spends from `budget`."""
    _current.budget = budget


@contextmanager
def budgeted(budget: Budget) -> Generator[None]:
    """Work of this thread spends from `budget`."""
    before = _current.budget
    _current.budget = budget
    try:
        yield
    finally:
        _current.budget = before


def bounded(ask: Callable[[], T]) -> T:
    """Ask under the request's budget; where no request has one, under one of its own."""
    if _current.budget is not None:
        return ask()
    with budgeted(Budget()):
        return ask()


def bounded_part(seconds: float, size_bytes: int, ask: Callable[[], T]) -> T:
    """Ask for a part of a request that may not use all of the request's budget."""
    with budgeted(Budget(seconds, size_bytes, _current.budget)):
        return ask()


def spend(size_bytes: int) -> None:
    """Say that a structure of that many bytes is read, or a step of that weight taken.

    About 1,000 bytes for each 10 µs of work are right where there are no bytes to count. Whoever
    goes on after a part of a request failed spends 0 first: what is used up stays used up.

    Raises:
        CostError: the request's budget is used up.
        InterruptError: whoever asked no longer waits.
    """
    budget = _current.budget
    if budget is not None:
        budget.spend(size_bytes)
