"""Tables that say where a disk's blocks are: read in pieces as needed, holes in them not at all.

Defined here and only here: `Table`, entries one after another in a file, and `Directory`, tables
that the entries of another lead to. Used by the disk formats. Immutable and thread-safe.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.errors import CorruptError, UnsupportedError
from store.image import ExtentKind, Image

PIECE_BYTES: Final = 64 << 10
"""Read of a table at once."""

SMALL_BYTES: Final = 4 << 10
"""Of so little it costs less to read it than to ask whether it lies in a hole."""

DIRECTORY_ENTRIES_MAX: Final = 1 << 22
ENTRIES_MAX: Final = 1 << 24
"""Of a directory, and of a table, that is looked through when its disk is opened."""

NOWHERE: Final = -1
"""Of a directory's entry: it leads to no table."""

WRONG: Final = -2
"""Of a directory's entry: it cannot be right."""

Values = NDArray[Any]
"""Of entries, in the order of bytes that they are stored in."""

Places = NDArray[np.int64]
"""Offsets in bytes; what is negative stands for something else."""


class Entries(NamedTuple):
    """Entries of a table one after another, those of `[first, end)`."""

    first: int
    end: int
    values: Values
    """As many; or one that stands for all, where they lie in a hole and are 0."""


class Table:
    """Entries of one kind in a file."""

    def __init__(
        self, file: Image, offset: int, count: int, kind: "np.dtype[Any] | str", what: str
    ) -> None:
        self.count: Final = count
        self.file: Final = file
        self.what: Final = what
        self._offset = offset
        self._kind = np.dtype(kind)
        self._entry_bytes = self._kind.itemsize
        if offset < 0 or offset + self.size_bytes > file.size:
            raise CorruptError(
                f"{what}: expected {count} entries at {offset}, but the file ends at {file.size}; "
                "it is cut short, or damaged where it says this"
            )

    @property
    def size_bytes(self) -> int:
        """Of the whole table."""
        return self.count * self._entry_bytes

    def entry(self, number: int) -> Any:
        """One entry, as numpy has it."""
        return self._read(number, number + 1)[0]

    def entries(self, first: int, end: int) -> Iterator[Entries]:
        """The entries of `[first, end)`, in order."""
        width = self._entry_bytes
        if (end - first) * width <= SMALL_BYTES:
            yield Entries(first, end, self._read(first, end))
            return
        at = first
        for extent in self.file.extents(self._offset + first * width, (end - first) * width):
            inside = extent.offset + extent.length - self._offset
            if extent.kind == ExtentKind.ZERO:
                if inside // width > at:
                    yield self._empty(at, inside // width)
                    at = inside // width
                continue
            stop = min(-(-inside // width), end)
            while at < stop:
                part = min(stop, at + PIECE_BYTES // width)
                yield Entries(at, part, self._read(at, part))
                at = part

    def _empty(self, first: int, end: int) -> Entries:
        return Entries(first, end, np.zeros(1, self._kind))

    def _read(self, first: int, end: int) -> Values:
        width = self._entry_bytes
        content = self.file.read(self._offset + first * width, (end - first) * width)
        return np.frombuffer(content, self._kind)


class _Group(NamedTuple):
    """Tables one after another, to which the directory's entries of `[first, end)` lead."""

    first: int
    end: int
    place: int
    """Bytes; negative if all that is known is that they are wrong."""


class Directory:
    """Tables of entries, each found by an entry of the directory.

    Of the directory only what leads to a table is kept. Tables that overlap are wrong: no writer
    makes them, and what they claim would have no limit.
    """

    def __init__(
        self,
        directory: Table,
        table_entries: int,
        kind: "np.dtype[Any] | str",
        places: Callable[[Values], Places],
    ) -> None:
        """`places` says where the tables of some entries are, or `NOWHERE`, or `WRONG`."""
        _expect_at_most(DIRECTORY_ENTRIES_MAX, directory)
        self._directory = directory
        self._table_entries = table_entries
        self._kind = np.dtype(kind)
        self._table_bytes = table_entries * self._kind.itemsize
        numbers, found = _leading(directory, places)
        found[overlapping(found, self._table_bytes)] = WRONG
        apart = (np.diff(numbers) != 1) | breaks(found, self._table_bytes)
        starts = np.flatnonzero(np.append(True, apart)) if numbers.size else numbers
        self._firsts = numbers[starts]
        self._ends = self._firsts + np.diff(starts, append=numbers.size)
        self._places = found[starts]

    def entry(self, number: int) -> Any:
        """One entry of the tables, as numpy has it; 0 where there is no table."""
        (found,) = self.entries(number, number + 1)
        return found.values[0]

    def entries(self, first: int, end: int) -> Iterator[Entries]:
        """The entries of `[first, end)` of all tables, in order.

        Raises:
            CorruptError: the directory is wrong about one of them.
        """
        size = self._table_entries
        at = first
        for group in self._groups(first // size, -(-end // size)):
            start = group.first * size
            if start > at:
                yield self._empty(at, start)
                at = start
            stop = min(group.end * size, end)
            for part in self._table(group).entries(at - start, stop - start):
                yield Entries(start + part.first, start + part.end, part.values)
            at = stop
        if at < end:
            yield self._empty(at, end)

    def _empty(self, first: int, end: int) -> Entries:
        return Entries(first, end, np.zeros(1, self._kind))

    def _groups(self, first: int, end: int) -> Iterator[_Group]:
        low = max(int(np.searchsorted(self._firsts, first, "right")) - 1, 0)
        high = int(np.searchsorted(self._firsts, end))
        for index in range(low, high):
            group = _Group(*(int(part[index]) for part in (self._firsts, self._ends, self._places)))
            if group.end > first:
                yield group

    def _table(self, group: _Group) -> Table:
        what = f"{self._directory.what}, entry {group.first}"
        if group.place < 0:
            raise CorruptError(
                f"{what}: expected the place of a table of its own, got "
                f"{self._directory.entry(group.first):#x}"
            )
        count = (group.end - group.first) * self._table_entries
        return Table(self._directory.file, group.place, count, self._kind, what)


def _leading(
    directory: Table, places: Callable[[Values], Places]
) -> tuple[NDArray[np.int64], Places]:
    """The numbers of those entries that lead somewhere, and where to."""
    numbers: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
    found: list[Places] = [np.empty(0, np.int64)]
    for part in directory.entries(0, directory.count):
        led = places(part.values)  # of a hole: nowhere
        index = np.flatnonzero(led != NOWHERE)
        numbers.append(index + part.first)
        found.append(led[index])
    return np.concatenate(numbers), np.concatenate(found)


def _expect_at_most(entries: int, table: Table) -> None:
    if table.count > entries:
        raise UnsupportedError(f"{table.what}: expected at most {entries}, got {table.count}")


def breaks(places: Places, length: int) -> NDArray[np.bool_]:
    """Whether each but the last is apart from the next.

    It is not if that is `length` bytes further on, or the same where both are negative.
    """
    left, right = places[:-1], places[1:]
    return right != np.where(left < 0, left, left + length)


def overlapping(places: Places, length: int) -> NDArray[np.int64]:
    """The indexes of those places, not negative, whose `length` bytes are partly another's too."""
    order = np.argsort(places, kind="stable")
    order = order[np.searchsorted(places, 0, sorter=order) :]
    return order[_close(places[order], length)]


def shared(table: Table, unused: int, length: int) -> Values:
    """Those entries, below `unused`, that claim for a block what another claims as well.

    Each is where a block of a length begins, in any unit.

    Raises:
        UnsupportedError: it is too large a table to be looked through.
    """
    _expect_at_most(ENTRIES_MAX, table)
    parts = [np.empty(0, np.uint32)]
    for part in table.entries(0, table.count):
        repeated = 1 if part.values.size == part.end - part.first else 2  # one stands for all
        used = part.values[part.values < unused].astype(np.uint32)
        parts.append(np.repeat(used, repeated))
    values = np.concatenate(parts)
    del parts
    values.sort()
    return values[_close(values, length)]


def _close(ordered: Values, length: int) -> NDArray[np.bool_]:
    """Which numbers are less than `length` from the one before or after."""
    near = np.diff(ordered) < length
    found = np.zeros(ordered.size, np.bool_)
    found[:-1] |= near
    found[1:] |= near
    return found
