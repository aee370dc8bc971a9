"""Extents of a file in blocks of its volume: mapped, and found in a tree of nodes.

Defined here and only here: `Run`, `RunImage`, `Node` and `ExtentTree`, what the files of ext4 and
of XFS have in common. Used by guest.ext and guest.xfs. Immutable and thread-safe; of a tree only
the nodes last used are kept.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from store.errors import CorruptError
from store.image import Extent, ExtentKind, Image, MappedImage

NODES_MAX: Final = 64
"""Nodes of a tree that are kept while its file is open."""


class Run(NamedTuple):
    """Blocks of a file that lie together from block `place` on; None: they were never written."""

    first: int
    blocks: int
    place: int | None


class Node(NamedTuple):
    """A node of a tree: its runs, or at a higher level each child's first block and place."""

    level: int
    entries: list[Run]


class ExtentTree:
    """A file's runs in a tree, below a root that its inode holds."""

    def __init__(self, root: Node, end: int, child: Callable[[int, int], Node], where: str) -> None:
        """`end` is the block that no file reaches; `child` reads a node, by place and level."""
        self._root = root
        self._end = end
        self._child = lru_cache(NODES_MAX)(child)
        self._where = where

    def runs(self, first: int, end: int) -> Iterator[Run]:
        """The runs that hold blocks of `[first, end)`, in order; what lies between is a hole.

        Raises:
            CorruptError: a node or the order of its entries is wrong.
        """
        return self._under(self._root, first, end, 0, self._end)

    def _under(self, node: Node, first: int, end: int, low: int, high: int) -> Iterator[Run]:
        """The runs below a node that holds blocks of `[low, high)`."""
        for number, entry in enumerate(node.entries):
            following = node.entries[number + 1].first if number + 1 < len(node.entries) else high
            if following <= first:
                continue
            if entry.first >= end:
                return
            stop = entry.first + (entry.blocks if node.level == 0 else 1)
            if entry.first < low or stop > following or following > high:
                raise CorruptError(
                    f"{self._where}: expected extents in order, got one at {entry.first}"
                )
            if node.level == 0:
                if stop > first:
                    yield entry
                continue
            assert entry.place is not None
            child = self._child(entry.place, node.level - 1)
            yield from self._under(child, first, end, entry.first, following)


class RunImage(MappedImage):
    """A file's bytes, mapped onto its volume's image by runs."""

    def __init__(self, size: int, block_bytes: int, volume: Image) -> None:
        super().__init__(size)
        self._block_bytes = block_bytes
        self._volume = volume

    @abstractmethod
    def _runs(self, first: int, end: int) -> Iterator[Run]:
        """The runs that hold blocks of `[first, end)`, in order; what lies between is a hole."""

    @abstractmethod
    def _place(self, run: Run) -> int:
        """Where in the volume a run's bytes begin."""

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        block_bytes = self._block_bytes
        end = offset + length
        at = offset
        for run in self._runs(offset // block_bytes, -(-end // block_bytes)):
            start, run_bytes = run.first * block_bytes, run.blocks * block_bytes
            if start > at:
                yield Extent(at, start - at, ExtentKind.ZERO, None, 0)
            if run.place is None:
                yield Extent(start, run_bytes, ExtentKind.ZERO, None, 0)
            else:
                place = self._place(run)
                yield Extent(start, run_bytes, ExtentKind.DATA, self._volume, place)
            at = start + run_bytes
        if at < end:
            yield Extent(at, end - at, ExtentKind.ZERO, None, 0)
