"""The turn: which thread waits for the next request.

Defined here and only here: `Turn`. Used by the device server. Thread-safe.
"""

from threading import Lock
from typing import Final

OVERDUE_SECONDS: Final = 0.01
"""A request that keeps the turn as long as this is no short one; the turn goes on without it."""


class Turn:
    """Had by one thread at a time; who works on a short request may keep it meanwhile.

    Kept, it lies in the open: whoever watches over the threads may take it away, and its keeper
    finds out when it reaches for it again.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: list[float] = []
        self._waiting: list[None] = []  # as many as threads that do, whoever adds meanwhile
        self.times_taken = 0

    def take(self) -> None:
        """Wait for it."""
        self._waiting.append(None)
        self._lock.acquire()
        self._waiting.pop()
        self.times_taken += 1

    def pass_on(self) -> None:
        """Give it to whoever waits for it."""
        self._lock.release()

    def keep(self, since: float) -> None:
        """Go on having it during a short request, which began at that moment of `perf_counter`."""
        self._kept.append(since)

    def reach_again(self) -> bool:
        """Whether it still is there, after `keep`."""
        try:
            self._kept.pop()
        except IndexError:
            return False
        return True

    def is_awake(self) -> bool:
        """Whether some thread has it and waits for a request."""
        return self._lock.locked() and not self._kept

    def is_left(self) -> bool:
        """Whether no thread has it, nor waits for it."""
        return not self._lock.locked() and not self._waiting

    def pass_on_overdue(self, now: float) -> None:
        """Take it away from a thread that keeps it too long."""
        try:
            overdue = now - self._kept[0] > OVERDUE_SECONDS
        except IndexError:
            return
        if overdue and self.reach_again():
            self._lock.release()
