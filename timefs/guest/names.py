"""Names of folders that were read once and are looked up by name again and again.

Defined here and only here: `Names` and `reader_of_names`. Used by guest.posix and guest.fat.
Thread-safe: what is kept is immutable, and the cache of it bounded.
"""

from collections.abc import Callable, Hashable, Iterator
from functools import lru_cache
from typing import Final, Generic, Protocol, TypeVar

from store.errors import CorruptError

FOLDERS_MAX: Final = 16
NAMES_MAX: Final = 20_000
"""Folders whose names are kept, if they have no more than that."""


class Named(Protocol):
    """What a folder says of one of its names."""

    @property
    def name(self) -> bytes:
        """As it is looked up."""
        ...


One = TypeVar("One", bound=Named)
Key = TypeVar("Key", bound=Hashable)


class Names(Generic[One]):
    """A folder's names, and why some of them are missing."""

    def __init__(self, found: dict[bytes, One], refusal: str | None) -> None:
        """Of the refusal its text only: an error that is kept keeps whoever raised it."""
        self._found = found
        self._refusal = refusal

    def find(self, name: bytes) -> One | None:
        """The one of that name, None if there surely is none.

        Raises:
            CorruptError: it may be among those that could not be read.
        """
        found = self._found.get(name)
        if found is None and self._refusal is not None:
            raise CorruptError(self._refusal)
        return found


def reader_of_names(read: Callable[[Key], Iterator[One]]) -> Callable[[Key], Names[One] | None]:
    """Gives a folder's names, as `read` does; None if they are too many to be kept.

    `read` must not lead back to who keeps the answer: a ring would keep a whole volume in memory
    until the collector finds it.
    """

    def names(folder: Key) -> Names[One] | None:
        found: dict[bytes, One] = {}
        try:
            for one in read(folder):
                found.setdefault(one.name, one)
                if len(found) > NAMES_MAX:
                    return None
        except CorruptError as error:
            return Names(found, str(error))
        return Names(found, None)

    return lru_cache(FOLDERS_MAX)(names)
