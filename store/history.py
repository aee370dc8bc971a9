"""History: the reading side of a repository, as contracts.

Defined here and only here: the values `Instant` and `FileState` and the abstract `History` of a
repository. Implemented by store.repository; used by the time tree, restore and the commands, so
that nothing above the store sees packs or the index. Thread-safe.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from store.image import Image


class FileKind(StrEnum):
    """What a captured file's bytes are; fixed for a file's life."""

    CONTAINER = "container"
    """The bytes of a file on the host: a .vhdx, a .vhd, a raw disk, an .mdf."""
    DISK = "disk"
    """The disk as its guest sees it."""


class Instant(NamedTuple):
    """A state of all of a machine's files."""

    machine: str
    writer: int
    epoch: int
    sequence: int
    time_ns: int
    """UTC nanoseconds."""
    fuzzy: bool
    """Whether something changed while it was read, so that it is not crash-consistent."""


class FileState(NamedTuple):
    """One captured file at one instant."""

    name: str
    """Non-UTF-8 bytes are kept by surrogateescape."""
    number: int
    """Of the file within its machine; stays for life."""
    kind: FileKind
    size: int
    """Bytes; below 0 if a lost pack took the knowledge: opening it then fails."""
    changed_ns: int
    """Time of the newest change at or before the instant."""
    changed_epoch: int
    changed_sequence: int
    """(epoch, sequence) of that change: equal values mean equal bytes."""


class History(ABC):
    """What a repository can be asked about time; answers include every sealed transaction."""

    @abstractmethod
    def machines(self) -> Sequence[str]:
        """Names of all machines that have at least one instant, sorted."""

    @abstractmethod
    def instants(self, machine: str) -> Sequence[Instant]:
        """Every instant of a machine, oldest first.

        Raises:
            NotFoundError: no such machine.
        """

    @abstractmethod
    def changed(self, machine: str) -> Sequence[Instant]:
        """The instants at which anything may differ from the one before, oldest first.

        Raises:
            NotFoundError: no such machine.
        """

    @abstractmethod
    def at(self, machine: str, time_ns: int) -> Instant:
        """The last state at or before a time.

        Raises:
            NotFoundError: no such machine, or the time is before its first instant.
        """

    @abstractmethod
    def latest(self, machine: str) -> Instant:
        """The newest consistent instant; the newest of all if none is consistent.

        Raises:
            NotFoundError: no such machine.
        """

    @abstractmethod
    def watermark_ns(self, machine: str) -> int:
        """The time up to which the machine's history can never change again."""

    @abstractmethod
    def files(self, instant: Instant) -> Sequence[FileState]:
        """The machine's files at an instant, by name."""

    @abstractmethod
    def open(self, instant: Instant, file: FileState) -> Image:
        """The bytes of a file at an instant."""

    @abstractmethod
    def now_ns(self) -> int:
        """The server's clock: UTC nanoseconds."""
