"""What a file system that numbers its inodes must answer, for its nodes to be made of it.

Defined here and only here: `PosixVolume`, `Name`, `Survey` and `possible`. Used by guest.posix, and
by guest.ext and guest.xfs, which are such volumes. Thread-safe: values, and volumes are immutable.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from store.image import Image
from timefs.tree import Attributes


class Name(NamedTuple):
    """One name of a folder; `kind` is the type that the folder says, as in st_mode, or 0."""

    name: bytes
    number: int
    kind: int


class Survey(NamedTuple):
    """What was found of many inodes at once."""

    attributes: Sequence[Attributes | None]
    """What each says of itself, None where it has to be asked alone."""
    bare: frozenset[int]
    """Inodes that surely have no extended attributes."""


class PosixVolume(ABC):
    """A file system that knows its files by number. Every method raises CorruptError on damage."""

    @property
    @abstractmethod
    def root_number(self) -> int:
        """The inode of the root folder."""

    @property
    @abstractmethod
    def state(self) -> str:
        """What was done about the volume's journal."""

    @abstractmethod
    def attributes(self, number: int) -> Attributes:
        """What an inode says of itself."""

    @abstractmethod
    def xattrs(self, number: int) -> Mapping[bytes, bytes]:
        """An inode's extended attributes."""

    @abstractmethod
    def content(self, number: int) -> Image:
        """A file's bytes.

        Raises:
            UnsupportedError: they cannot be decoded.
        """

    @abstractmethod
    def target(self, number: int) -> bytes:
        """A symbolic link's text."""

    @abstractmethod
    def names(self, number: int, sought: bytes | None = None) -> Iterator[list[Name]]:
        """A folder's names in parts, without `.` and `..`; what is without `sought` may be left.

        Raises:
            CorruptError: after all that could be read, if some of it could not.
            UnsupportedError: they cannot be decoded.
        """

    @abstractmethod
    def indexed(self, number: int, name: bytes) -> Sequence[Name] | None:
        """The names of a folder that are `name` by its index; None if that cannot be told so."""

    @abstractmethod
    def survey(self, numbers: Sequence[int]) -> Survey:
        """Look at many inodes at once."""


def possible(name: bytes) -> bool:
    """Whether any system can hold a name, and it is neither of the two that each folder has."""
    return bool(name) and b"/" not in name and b"\0" not in name and name not in (b".", b"..")
