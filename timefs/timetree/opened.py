"""Opened: the images, disks and volumes that a time tree has open.

Defined here and only here: `Opened`, `Captured` and what detection said of a file. Used by the
nodes of the time tree, which hold no bytes themselves, so that memory is bounded by these caches
however many instants are looked at. Thread-safe. What a reader holds stays open for it after it has
left a cache.
"""

from typing import Final, NamedTuple

from store.history import FileState, History, Instant
from store.image import Image
from timefs.timetree.cache import Cache

IMAGES_MAX: Final = 64
NATURES_MAX: Final = 16384


class Captured(NamedTuple):
    """A captured file at an instant."""

    instant: Instant
    state: FileState

    @property
    def identity(self) -> bytes:
        """Equal wherever the file's bytes are the same."""
        machine = self.instant.machine.encode(errors="surrogateescape")
        state = self.state
        changed = (state.number, state.changed_epoch, state.changed_sequence)
        return b"file\0%b\0%d:%d:%d" % (machine, *changed)


class Opened:
    """The bounded caches of one time tree, by identity."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._images: Cache[bytes, Image] = Cache(IMAGES_MAX)

    def files(self, instant: Instant) -> list[Captured]:
        """The captured files of an instant."""
        return [Captured(instant, state) for state in self._history.files(instant)]

    def image(self, captured: Captured) -> Image:
        """The captured file's bytes."""
        instant, state = captured
        return self._images.made(captured.identity, lambda: self._history.open(instant, state))
