"""Why nodes that cannot change failed lately, so that the same question costs little again.

Defined here and only here: `KnownFailures`. Used by what a time tree has open and by the nodes
inside disks. Thread-safe. What the store says of its own bytes is not kept: it can be mended.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from time import monotonic
from typing import Final, NamedTuple, TypeVar

from store.budget import bounded
from store.errors import CorruptError, CostError, TimefsError, UnsupportedError

FAILURES_MAX: Final = 4096
KEPT_SECONDS: Final = 60.0
"""A request that was given up may fare better once the caches are warm."""

_KEPT: Final = (CorruptError, CostError, UnsupportedError)

T = TypeVar("T")


class _Failure(NamedTuple):
    """An error without what it was raised in, which holds much memory."""

    kind: type[TimefsError]
    message: str
    until: float


class KnownFailures:
    """The failures that were met lately, by what was asked; the oldest go first."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, _Failure] = OrderedDict()
        self._lock = Lock()

    def tried(self, question: Hashable, ask: Callable[[], T]) -> T:
        """Ask, under a budget whoever asks, unless it is known to fail.

        Raises:
            TimefsError: what `ask` raises, or raised lately.
        """
        self.check(question)
        try:
            return bounded(ask)
        except _KEPT as error:
            self._keep(question, error)
            raise

    def check(self, question: Hashable) -> None:
        """Raises what is known to come of a question."""
        failure = self._known.get(question) if self._known else None
        if failure is not None and monotonic() < failure.until:
            raise failure.kind(failure.message)

    def _keep(self, question: Hashable, error: TimefsError) -> None:
        with self._lock:
            self._known.pop(question, None)
            self._known[question] = _Failure(type(error), str(error), monotonic() + KEPT_SECONDS)
            if len(self._known) > FAILURES_MAX:
                self._known.popitem(last=False)
