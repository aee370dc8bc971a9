"""Siblings: the other captured files of a disk's machine at the same instant.

Defined here and only here: `Siblings`, by which a format that spreads a disk over several files
(backing files, parents, extents) reaches the others, and `Find`, which the time tree gives. Used by
timefs.guest.detect and the formats it knows. Immutable and thread-safe.
"""

from collections.abc import Callable, Iterable
from typing import Final

from store.errors import CorruptError
from store.image import Image

CHAIN_MAX: Final = 64
"""Files that may stand on one another."""

Find = Callable[[str], "Image | None"]
"""The captured file of that name, if the machine had one at the instant."""

Decode = Callable[[Image, "Siblings"], Image]


def no_siblings(name: str) -> None:
    """A `Find` of a file that stands alone."""
    del name


def file_names(path: str) -> Iterable[str]:
    """The names that a path, of whichever system, may mean among files without folders."""
    after_slash = path.rpartition("/")[2].removeprefix("file:")
    after_backslash = after_slash.rpartition("\\")[2]
    return dict.fromkeys(name for name in (after_slash, after_backslash) if name)


class Siblings:
    """Finds other files of the instant, and the disks in them."""

    def __init__(self, find: Find, decode: Decode, above: tuple[str, ...] = ()) -> None:
        self._find = find
        self._decode = decode
        self._above = above

    def file(self, paths: Iterable[str], what: str) -> tuple[Image, "Siblings"]:
        """The first of the files that paths name, and what it may look for siblings with.

        Raises:
            CorruptError: none of them is there, or it is among those that stand on it.
        """
        names = list(dict.fromkeys(name for path in paths for name in file_names(path)))
        for name in names:
            found = self._find(name)
            if found is None:
                continue
            if name in self._above or len(self._above) == CHAIN_MAX:
                chain = " on ".join((*self._above, name)[-4:])
                raise CorruptError(f"{what}: expected a chain with an end, got {chain}")
            return found, Siblings(self._find, self._decode, (*self._above, name))
        named = " or ".join(names).encode(errors="backslashreplace").decode()
        named = named or "a file without a name"
        raise CorruptError(
            f"{what}: expected {named} among the machine's files at this instant; capture it too"
        )

    def decode(self, file: Image) -> Image:
        """The disk in a file that was found; the file itself if it is a raw one.

        Raises:
            CorruptError: it is damaged, or what it stands on is not there.
            UnsupportedError: it is of a format that is not decoded.
        """
        return self._decode(file, self)
