"""Cache: a bounded map of what was made lately.

Defined here and only here: `Cache`. Used by the time tree for opened instants, images, disks and
volumes. Thread-safe: the lock is held for lookup and insertion only, so two threads may make the
same value at once; the first one inserted is what both get.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """At most `entries_max` values, the least recently used one goes first."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value kept for `key`, if there still is one."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> V:
        """Keep `value`, unless one is kept already; answers the one that is kept."""
        with self._lock:
            kept = self._values.setdefault(key, value)
            if kept is not value:
                self._values.move_to_end(key)
            elif len(self._values) > self._entries_max:
                self._values.popitem(last=False)
            return kept

    def made(self, key: K, make: Callable[[], V]) -> V:
        """The value kept for `key`, or a new one; what `make` raises is not kept."""
        value = self.get(key)
        return self.put(key, make()) if value is None else value
