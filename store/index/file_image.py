"""File images: a captured file's bytes as they were at a position.

Defined here and only here: `FileImage`, the image that everything else composes onto, and its
bounded cache of parsed pages. Used by the repository. Stateless reads, thread-safe.
"""

import threading
from array import array
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from store.errors import DamagedError
from store.format.row import BLOCK_BYTES, blocks_of
from store.image import Extent, ExtentKind, Image
from store.index.run import LOST_WRITER, PAGE_BYTES, RECORD, Run, Runs
from store.packs.reader import PackReader

RUNS_MAX: Final = 1 << 19
"""Runs of parsed pages kept by all of them together; a page counts 16. A run takes 45 bytes, and
100 more where it was proved as the first piece of a row that was cut."""

ROW_AT: Final = RECORD.size - 5 * 4
"""From here on a run says where its row lies, how long it is, and its check."""


class ParsedPage(NamedTuple):
    """A page's runs, ready to be looked up."""

    starts: "array[int]"
    runs: bytes
    """Each as `RECORD` unpacks it."""
    proven: bytearray
    """Per run, 1 once its check has been proved."""
    proven_rows: set[bytes]
    """The ends of runs, from `ROW_AT` on, whose rows were proved and have further pieces."""

    @property
    def is_zeros(self) -> bool:
        """Whether one run of zeros is all of the page."""
        if len(self.starts) != 1:
            return False
        _, offset, length, _, _, writer, *_ = self.run(0)
        return writer == 0 and offset == 0 and length == PAGE_BYTES

    def run(self, index: int) -> tuple[int, ...]:
        """The fields of store.index.run.Run."""
        return RECORD.unpack_from(self.runs, index * RECORD.size)


class PageCache:
    """Parsed pages by (writer, file, position, page)."""

    def __init__(
        self,
        load: Callable[[int, int, int, int], Runs],
        zeros_until: Callable[[int, int, int, int], int],
    ) -> None:
        """Both are asked by (writer, file, page, position)."""
        self._load = load
        self._zeros_until = zeros_until
        self._lock = threading.Lock()
        self._pages: OrderedDict[tuple[int, int, int, int], ParsedPage] = OrderedDict()
        self._runs = 0

    def clear(self) -> None:
        """Keep none."""
        with self._lock:
            self._pages.clear()
            self._runs = 0

    def page(self, writer: int, file: int, position: int, page: int) -> ParsedPage:
        """The page of a file at a position."""
        key = (writer, file, position, page)
        with self._lock:
            parsed = self._pages.get(key)
            if parsed is not None:
                self._pages.move_to_end(key)
                return parsed
        runs = self._load(writer, file, page, position)
        starts = array("I", runs["offset"].tobytes())
        parsed = ParsedPage(starts, runs.tobytes(), bytearray(runs.size), set())
        with self._lock:
            if key not in self._pages:
                self._pages[key] = parsed
                self._runs += _weight(parsed)
                while self._runs > RUNS_MAX and len(self._pages) > 1:
                    self._runs -= _weight(self._pages.popitem(last=False)[1])
        return parsed

    def zeros_until(self, writer: int, file: int, position: int, page: int) -> int:
        """The page before which, from this one on, all is zeros; at least the page itself."""
        return self._zeros_until(writer, file, page, position)


def _weight(page: ParsedPage) -> int:
    return len(page.starts) + 16


class FileImage(Image):
    """A file of a machine at a position."""

    def __init__(  # noqa: PLR0913, PLR0917  # an image of a file is exactly these
        self,
        pages: PageCache,
        reader: PackReader,
        writer: int,
        file: int,
        position: int,
        size: int,
        name: str,
    ) -> None:
        self._pages = pages
        self._reader = reader
        self._writer = writer
        self._file = file
        self._position = position
        self._size = size
        self._name = name

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self._size - offset))
        done = 0
        while done < wanted:
            number, start = divmod(offset + done, PAGE_BYTES)
            end = min(PAGE_BYTES, start + wanted - done)
            page = self._pages.page(self._writer, self._file, self._position, number)
            try:
                self._read_page(page, start, buffer[done : done + end - start])
            except DamagedError as error:
                raise DamagedError(f"{self._name} at {offset + done}: {error}") from error
            done += end - start
        return wanted

    def _read_page(self, page: ParsedPage, start: int, buffer: memoryview) -> None:
        end = start + len(buffer)
        at = start
        index = max(0, bisect_right(page.starts, at) - 1)
        while at < end:
            if index >= len(page.starts):
                raise DamagedError(f"no row covers byte {at} of its page; run `timefs check`")
            _, offset, length, skip, _, writer, number, slot, _ = page.run(index)
            stop = min(offset + length, end)
            if not offset <= at < stop:
                raise DamagedError(f"no row covers byte {at} of its page; run `timefs check`")
            target = buffer[at - start : stop - start]
            if writer == 0:
                target[:] = bytes(len(target))
            else:
                if not page.proven[index]:
                    self._prove(page, index)
                address = slot * BLOCK_BYTES + skip + at - offset
                self._reader.read_into(writer, number, address, target)
            at = stop
            index += 1

    def _prove(self, page: ParsedPage, index: int) -> None:
        run = Run(*page.run(index))
        if run.writer == LOST_WRITER:
            raise DamagedError("the pack that held these bytes is lost; run `timefs check`")
        if run.skip + run.length > run.row_length:
            raise DamagedError("index: a run is longer than its row; run `timefs rebuild`")
        row = page.runs[index * RECORD.size + ROW_AT : (index + 1) * RECORD.size]
        if row not in page.proven_rows:
            blocks = blocks_of(run.row_length)
            self._reader.prove(run.writer, run.number, run.slot, blocks, run.check)
            if run.length < run.row_length:
                page.proven_rows.add(row)
        page.proven[index] = 1

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = min(offset + length, self._size)
        while offset < end:
            number, start = divmod(offset, PAGE_BYTES)
            base = number * PAGE_BYTES
            stop = min(end - base, PAGE_BYTES)
            page = self._pages.page(self._writer, self._file, self._position, number)
            if stop == PAGE_BYTES and page.is_zeros:
                after = self._pages.zeros_until(self._writer, self._file, self._position, number)
                stop = max(min(after * PAGE_BYTES, end) - base, stop)
                yield Extent(offset, base + stop - offset, ExtentKind.ZERO, None, 0)
            else:
                yield from self._page_extents(page, base, start, stop)
            offset = base + stop

    def _page_extents(self, page: ParsedPage, base: int, start: int, stop: int) -> Iterator[Extent]:
        """Zeros as such; all else, damage included, as data of this image."""
        at = start
        for index in range(max(0, bisect_right(page.starts, start) - 1), len(page.starts)):
            _, offset, length, _, _, writer, *_ = page.run(index)
            first, last = max(offset, at), min(offset + length, stop)
            if first >= last or writer:
                continue
            if first > at:
                yield Extent(base + at, first - at, ExtentKind.DATA, self, base + at)
            yield Extent(base + first, last - first, ExtentKind.ZERO, None, 0)
            at = last
        if at < stop:
            yield Extent(base + at, stop - at, ExtentKind.DATA, self, base + at)
