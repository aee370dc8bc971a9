"""Which folder has which clusters, so that a folder has one place however many entries name it.

Defined here and only here: `Owners`. Used by `node`. Thread-safe.

On a damaged or hostile volume several entries may lead to the same clusters: folders then form a
graph, in which the paths are endless or exponentially many. Neither format says which entry is the
right one (`..` may be what is damaged, exFAT has none), so the one that is entered first has the
clusters, and the others say where it is.
"""

from bisect import bisect_right
from itertools import pairwise
from threading import Lock
from typing import Final

from store.errors import CorruptError
from store.image import MappedImage
from timefs.guest.fat.record import ROOT_PLACE, Record

STRETCHES_MAX: Final = 1 << 18
"""Remembered of a volume, some 100 bytes each; when there are more, all are learnt anew."""


class Owners:
    """The stretches of one volume that are folders' content, as far as folders were entered."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._places: list[int] = []
        """Of each stretch, in order: where it begins and ends, and where its folder's entry is."""
        self._lock = Lock()

    def take(self, content: MappedImage, folder: Record) -> None:
        """Enter a folder.

        Raises:
            CorruptError: another one has some of its content, or it has some of it twice.
        """
        stretches = _stretches(content, folder)
        with self._lock:
            if len(self._starts) >= STRETCHES_MAX:
                for column in (self._starts, self._ends, self._places):
                    column.clear()
            known = [self._known(start, end, folder) for start, end in stretches]
            if not all(known):
                for start, end in stretches:
                    self._add(start, end, folder.place)

    def _known(self, start: int, end: int, folder: Record) -> bool:
        """Whether a stretch is known as this folder's.

        Raises:
            CorruptError: some of it is another's.
        """
        first = max(0, bisect_right(self._starts, start) - 1)
        known = False
        for at in range(first, bisect_right(self._starts, end - 1)):
            if self._ends[at] > start:
                owner = self._places[at]
                known = owner == folder.place
                if not known:
                    by = "the root" if owner == ROOT_PLACE else f"the folder whose entry is {owner}"
                    raise CorruptError(f"{folder.where}: its clusters are shown already, in {by}")
        return known

    def _add(self, start: int, end: int, place: int) -> None:
        at = bisect_right(self._starts, start)
        self._starts.insert(at, start)
        self._ends.insert(at, end)
        self._places.insert(at, place)


def _stretches(content: MappedImage, folder: Record) -> list[tuple[int, int]]:
    """Where on the volume a folder's content begins and ends, and goes on, in order of place."""
    runs = content.map(0, content.size)
    stretches = sorted((run.place, run.place + run.length) for run in runs)
    if any(end > start for (_, end), (start, _) in pairwise(stretches)):
        raise CorruptError(f"{folder.where}: its chain of clusters leads back into itself")
    return stretches
