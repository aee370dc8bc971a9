"""What one instant's folder shows: captured files, and what is inside those that are disks."""

from collections.abc import Iterator
from stat import S_IFREG

from store.errors import NotFoundError
from store.history import Instant
from store.image import Image
from timefs.timetree.opened import Captured, Opened
from timefs.tree import Attributes, Entry, Leaf, Node


def file_name(name: str) -> bytes:
    """A name of the store as the kernel sees it."""
    return name.encode(errors="surrogateescape")


def machine_name(name: bytes) -> str:
    """A name of the kernel as the store knows it."""
    return name.decode(errors="surrogateescape")


class CapturedFile(Leaf):
    """A captured file, byte for byte."""

    def __init__(self, opened: Opened, captured: Captured) -> None:
        self._opened = opened
        self._captured = captured

    @property
    def identity(self) -> bytes:
        return self._captured.identity

    def attributes(self) -> Attributes:
        _, _, _, size, time_ns, *_ = self._captured.state
        return Attributes(S_IFREG | 0o444, size, size, 1, time_ns, time_ns, time_ns, time_ns)

    def open(self) -> Image:
        return self._opened.image(self._captured)


class InstantView:
    """The names of one instant."""

    def __init__(self, opened: Opened, instant: Instant) -> None:
        self._opened = opened
        self._captured = {file_name(each.state.name): each for each in opened.files(instant)}

    def lookup(self, name: bytes) -> Node:
        """The node of a name, listed or not."""
        captured = self._captured.get(name)
        if captured is None:
            raise NotFoundError(f"{name!a}: no such file at this instant")
        return CapturedFile(self._opened, captured)

    def entries(self) -> Iterator[Entry]:
        """What a listing shows."""
        for name, captured in self._captured.items():
            yield Entry(name, CapturedFile(self._opened, captured))
