"""Extended attributes of which a value is read when it is asked for.

Defined here and only here: `LazyXattrs`. Used by guest.ext, guest.xfs and guest.posix. Immutable
and thread-safe.
"""

from collections.abc import Callable, Iterator, Mapping


class LazyXattrs(Mapping[bytes, bytes]):
    """Values by full name: those at hand, and ways to those that lie elsewhere.

    So that many names cost no more than themselves, however much their values claim to be.
    """

    def __init__(self, values: Mapping[bytes, bytes | Callable[[], bytes]]) -> None:
        self._values = values

    def __getitem__(self, name: bytes) -> bytes:
        value = self._values[name]
        return value if isinstance(value, bytes) else value()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
