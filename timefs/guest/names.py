"""Names of folders that were read once and are looked up by name again and again.

Defined here and only here: `Names`, `reader_of_names` and `Refusals`. Used by guest.posix, what
stands on it, and guest.fat. Thread-safe but for `Refusals`, which is one reader's: what is kept is
immutable, and the cache of it bounded.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from threading import Lock
from typing import Final, Generic, Protocol, TypeVar

from store.errors import CorruptError

NAMES_MAX: Final = 320_000
"""Names that are kept of a volume's folders, however they are spread over them."""


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

    def __len__(self) -> int:
        return len(self._found)

    def find(self, name: bytes) -> One | None:
        """The one of that name, None if there surely is none.

        Raises:
            CorruptError: it may be among those that could not be read.
        """
        found = self._found.get(name)
        if found is None and self._refusal is not None:
            raise CorruptError(self._refusal)
        return found


class Refusals:
    """What was wrong with a folder, told when all that can be read of it was given."""

    def __init__(self) -> None:
        self._first: str | None = None

    def __bool__(self) -> bool:
        return self._first is not None

    def add(self, where: str, why: str) -> None:
        """The first is told."""
        self._first = self._first or f"{where}: {why}"

    def end(self) -> None:
        """Raises CorruptError if anything was wrong."""
        if self._first is not None:
            raise CorruptError(self._first)


def reader_of_names(read: Callable[[Key], Iterator[One]]) -> Callable[[Key], Names[One] | None]:
    """Gives a folder's names, as `read` does; None if they are too many to be kept.

    `read` must not lead back to who keeps the answer: a ring would keep a whole volume in memory
    until the collector finds it.
    """
    kept: _Kept[Key, One] = _Kept()

    def names(folder: Key) -> Names[One] | None:
        answer = kept.get(folder)
        if answer is None:
            answer = kept.put(folder, (_read(read(folder)),))
        return answer[0]

    return names


def _read(listed: Iterator[One]) -> Names[One] | None:
    found: dict[bytes, One] = {}
    try:
        for one in listed:
            found.setdefault(one.name, one)
            if len(found) > NAMES_MAX:
                return None
    except CorruptError as error:
        return Names(found, str(error))
    return Names(found, None)


class _Kept(Generic[Key, One]):
    """The answers about the folders asked for last; one of a folder with too many is None."""

    def __init__(self) -> None:
        self._answers: OrderedDict[Key, tuple[Names[One] | None]] = OrderedDict()
        self._weight = 0
        self._lock = Lock()

    def get(self, folder: Key) -> tuple[Names[One] | None] | None:
        with self._lock:
            answer = self._answers.get(folder)
            if answer is not None:
                self._answers.move_to_end(folder)
            return answer

    def put(self, folder: Key, answer: tuple[Names[One] | None]) -> tuple[Names[One] | None]:
        """Keep an answer, unless another thread was first; the oldest make room."""
        with self._lock:
            kept = self._answers.setdefault(folder, answer)
            if kept is answer:
                self._weight += _weight(answer)
                while self._weight > NAMES_MAX and len(self._answers) > 1:
                    self._weight -= _weight(self._answers.popitem(last=False)[1])
            return kept


def _weight(answer: tuple[Names[One] | None]) -> int:
    """The names it holds; what keeps it counts as one."""
    return 1 + (len(answer[0]) if answer[0] is not None else 0)
