"""Extents of a file in blocks of its volume: mapped, and found in a tree of nodes.

Defined here and only here: `Run`, `RunImage`, `Node`, `ExtentTree`, what the files of ext4 and of
XFS have in common; `each_once`, how their folders are read, and `refuse_repeated`. Used by
guest.ext and guest.xfs. Immutable and thread-safe; of a tree only the nodes last used are kept.
"""

from abc import abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import Final, NamedTuple

from store.budget import spend
from store.errors import CorruptError
from store.image import Extent, ExtentKind, Image, MappedImage
from timefs.guest.names import Refusals

NODES_MAX: Final = 64
"""Nodes of a tree that are kept while its file is open."""


REPEATED_MAX: Final = 1000
"""With more runs of blocks that it holds already, the rest of a folder is not looked at."""

TOGETHER_BYTES_MAX: Final = 64 << 10
"""Blocks of a folder are read in pieces of this size."""


class Run(NamedTuple):
    """Blocks of a file that lie together from block `place` on; None: they were never written."""

    first: int
    blocks: int
    place: int | None


_FIRST: Final = attrgetter("first")

STEP_COST_BYTES: Final = 128
"""What a step to an entry of a node costs."""


class Node(NamedTuple):
    """A node of a tree: its runs, or at a higher level each child's first block and place."""

    level: int
    entries: list[Run]


class ExtentTree:
    """A file's runs in a tree, below a root that its inode holds."""

    def __init__(self, root: Node, end: int, child: Callable[[int, int], Node], where: str) -> None:
        """`end` is the block that no file reaches; `child` reads a node, by place and level.

        Raises:
            CorruptError: the root's entries are not in order.
        """
        self._root = _ordered(root, where)
        self._end = end
        self._child = lru_cache(NODES_MAX)(lambda *asked: _ordered(child(*asked), where))
        self._where = where

    def runs(self, first: int, end: int) -> Iterator[Run]:
        """The runs that hold blocks of `[first, end)`, in order; what lies between is a hole.

        Raises:
            CorruptError: a node or the order of its entries is wrong.
        """
        return self._under(self._root, first, end, 0, self._end)

    def _under(self, node: Node, first: int, end: int, low: int, high: int) -> Iterator[Run]:
        """The runs below a node that holds blocks of `[low, high)`."""
        entries = node.entries
        start = max(0, bisect_right(entries, first, key=_FIRST) - 1)
        for number in range(start, bisect_left(entries, end, key=_FIRST)):
            spend(STEP_COST_BYTES)
            entry = entries[number]
            following = entries[number + 1].first if number + 1 < len(entries) else high
            if entry.first < low or _stop(node, entry) > following or following > high:
                raise _disorder(self._where, entry)
            if node.level == 0:
                if entry.first + entry.blocks > first:
                    yield entry
            elif following > first:
                assert entry.place is not None
                child = self._child(entry.place, node.level - 1)
                yield from self._under(child, first, end, entry.first, following)


def _ordered(node: Node, where: str) -> Node:
    """A node whose entries follow one another."""
    entries = node.entries
    for entry, following in pairwise(entries):
        if _stop(node, entry) > following.first:
            raise _disorder(where, following)
    return node


def _stop(node: Node, entry: Run) -> int:
    """Before what block the next entry cannot begin."""
    return entry.first + (entry.blocks if node.level == 0 else 1)


def _disorder(where: str, entry: Run) -> CorruptError:
    return CorruptError(f"{where}: expected extents in order, got one at {entry.first}")


class RunImage(MappedImage):
    """A file's bytes, mapped onto its volume's image by runs."""

    def __init__(self, size: int, block_bytes: int, volume: Image) -> None:
        super().__init__(size)
        self._block_bytes = block_bytes
        self._volume = volume

    @abstractmethod
    def runs(self, first: int, end: int) -> Iterator[Run]:
        """The runs that hold blocks of `[first, end)`, in order; what lies between is a hole."""

    @abstractmethod
    def _place(self, run: Run) -> int:
        """Where in the volume a run's bytes begin."""

    def stored(self, run: Run, where: str, refusals: Refusals) -> Iterator[tuple[int, bytes]]:
        """The bytes of a run, some blocks at once, with where in the file they begin.

        Zeros that the volume's image knows of are not read, but refused.
        """
        at = self._place(run)
        shift, end = run.first * self._block_bytes - at, at + run.blocks * self._block_bytes
        while at < end:
            count = min(TOGETHER_BYTES_MAX, end - at)
            ahead = next(self._volume.extents(at, end - at))
            if ahead.kind == ExtentKind.ZERO and ahead.length >= count:
                refusals.add(where, f"nothing but zeros from {at + shift} on")
                at += ahead.length // count * count
            else:
                yield at + shift, self._volume.read(at, count)
                at += count

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        block_bytes = self._block_bytes
        end = offset + length
        at = offset
        for run in self.runs(offset // block_bytes, -(-end // block_bytes)):
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


def each_once(
    runs: Iterable[Run], image: RunImage, where: str, refusals: Refusals
) -> Iterator[tuple[int, bytes]]:
    """The blocks of a folder, some at once, with where in the folder they begin.

    What cannot be names is not read, but refused: a block that the folder holds already, and blocks
    that lie where the volume has nothing but zeros. So the cost follows what is there.
    """
    taken, repeated = _Taken(), 0
    for run in runs:
        if run.place is None:
            continue
        if not taken.take(run.place, run.blocks):
            refusals.add(where, f"its block {run.first} is one that it holds already")
            repeated += 1
            if repeated == REPEATED_MAX:
                return
            continue
        try:
            yield from image.stored(run, where, refusals)
        except CorruptError as error:
            refusals.add(where, str(error))


def refuse_repeated(runs: Iterable[Run], where: str) -> None:
    """Raises CorruptError if a file that is to be read as a whole holds a block twice."""
    taken = _Taken()
    for run in runs:
        if run.place is not None and not taken.take(run.place, run.blocks):
            raise CorruptError(f"{where}: its block {run.first} is one that it holds already")


class _Taken:
    """Blocks of a volume that were met, as ranges."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def take(self, start: int, blocks: int) -> bool:
        """Whether none of the blocks was met before; they count as met from now on."""
        at = bisect_right(self._starts, start)
        if at and self._ends[at - 1] > start:
            return False
        if at < len(self._starts) and self._starts[at] < start + blocks:
            return False
        if at and self._ends[at - 1] == start:
            self._ends[at - 1] = start + blocks
        else:
            self._starts.insert(at, start)
            self._ends.insert(at, start + blocks)
        return True
