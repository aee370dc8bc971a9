"""Which folder has which clusters, so that a folder has one place however many entries name it.

Defined here and only here: `Owners`. Used by `node`. Thread-safe.

On a damaged or hostile volume several entries may lead to the same clusters: folders then form a
graph, in which the paths are endless or exponentially many. Neither format says which entry is the
right one (`..` may be what is damaged, exFAT has none), so the one that is entered first has the
clusters, and the others say where it is.
"""

from typing import Final

from store.errors import CorruptError
from store.image import MappedImage
from timefs.guest.fat.record import ROOT_PLACE, Record

OWNERS_MAX: Final = 1 << 19
"""Ends of folders that are remembered, some 100 bytes each; then they are learnt anew."""


class Owners:
    """The folders of one volume that were entered, by where their content begins and ends.

    Chains that meet go on together, so the last cluster tells them as well as the first one does.
    """

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        """By a byte of the volume, where the entry lies of the folder that has it."""

    def take(self, content: MappedImage, folder: Record) -> None:
        """Enter a folder.

        Raises:
            CorruptError: another one has its content.
        """
        if len(self._places) >= OWNERS_MAX:
            self._places.clear()
        for end in _ends(content):
            owner = self._places.setdefault(end, folder.place)
            if owner != folder.place:
                by = "the root" if owner == ROOT_PLACE else f"the folder of the entry at {owner}"
                raise CorruptError(f"{folder.where}: its clusters are shown already, in {by}")


def _ends(content: MappedImage) -> tuple[int, ...]:
    """The first byte of a folder's content and its last one, on the volume."""
    runs = list(content.map(0, content.size)) if content.size else []
    if not runs:
        return ()
    return runs[0].place, runs[-1].place + content.size - 1 - runs[-1].offset
