"""The wall clock, and the only place that reads it.

Used by the repository, which hands it on; everything else is given times. Thread-safe.
"""

import time
from abc import ABC, abstractmethod


class Clock(ABC):
    """Where the time comes from."""

    @abstractmethod
    def now_ns(self) -> int:
        """UTC nanoseconds since 1970."""


class SystemClock(Clock):
    """The operating system's clock."""

    def now_ns(self) -> int:
        return time.time_ns()  # noqa: TID251  # this is the one place
