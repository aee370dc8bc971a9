"""The index's file: every page that SQLite reads of it is proved to be the one it wrote there.

Defined here and only here: connections to an index, and what lies between SQLite and the disk. Each
page of the database ends in a checksum of its content and number. The write-ahead log brings
checksums of its own, which SQLite looks at only when it takes over a log that somebody left; here
every frame is proved when it is read, and a log that breaks off before a commit that it holds is
damage. Used by store.index.index. A connection serves one thread at a time.

Source: https://sqlite.org/fileformat2.html, sections 1.3 (reserved bytes) and 4 (the log).
"""

# pyright: reportUnknownMemberType=false
# The types of apsw name collections.abc.Buffer, which Python 3.11 does not have.
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw
import numpy as np

from store.errors import TimefsError
from store.format.digest import CHECKSUM_BYTES, checksum

SQLITE_PAGE_BYTES: Final = 4096
"""Not to be taken for a page of the index."""

CACHE_KIB: Final = 16 << 10
BUSY_SECONDS: Final = 60

RESERVED_AT: Final = 20
"""Place in the first page that says how many bytes at the end of each are not SQLite's."""

LOG_HEADER: Final = struct.Struct(">8I")
LOG_HEADER_SUMMED_BYTES: Final = 24
LOG_SALTS_AT: Final = 16
LOG_MAGIC: Final = 0x377F0682 | (sys.byteorder == "big")
SUMS: Final = struct.Struct(">2I")
FRAME_HEADER_BYTES: Final = 24
"""Of a frame: its page, the database's size if it ends a transaction, salts, sums."""
FRAME_HEADER_SUMMED_BYTES: Final = 8
FRAME_COMMITS: Final = slice(4, 8)
FRAME_SALTS: Final = slice(8, 16)
FRAME_SUMS_AT: Final = 16
FRAME_BYTES: Final = FRAME_HEADER_BYTES + SQLITE_PAGE_BYTES

_SETTINGS: Final = (
    f"page_size = {SQLITE_PAGE_BYTES}",
    f"cache_size = -{CACHE_KIB}",
    "journal_mode = WAL",
    "synchronous = FULL",
)

Value = int | str | bytes | None


class ForeignError(apsw.NotADBError):
    """The file is a database, but its pages have no checksums: another format of the index."""


class Sums(NamedTuple):
    """The log's running checksum: two words of 32 bits."""

    first: int
    second: int


def _weights(words: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint32]]:
    """What each word adds to both sums at the end: every step adds the two before it."""
    fibonacci = [1, 1]
    while len(fibonacci) < words:
        fibonacci.append((fibonacci[-1] + fibonacci[-2]) & 0xFFFFFFFF)
    second = np.array(fibonacci[:words][::-1], np.uint32)
    return np.stack([np.append(second[1:], np.uint32(0)), second], axis=1)


_WEIGHTS: Final = _weights((FRAME_HEADER_SUMMED_BYTES + SQLITE_PAGE_BYTES) // 4)


def log_sums(before: Sums, content: bytes) -> Sums:
    """The log's checksum after more content: an even number of words in this machine's order."""
    words = np.frombuffer(content, np.uint32).copy()
    words[:2] += np.array([before.first + before.second & 0xFFFFFFFF, before.second], np.uint32)
    first, second = (words @ _WEIGHTS[len(_WEIGHTS) - words.size :]).tolist()
    return Sums(first, second)


class _Database(apsw.VFSFile):
    """The database: its pages, each with its checksum."""

    def xRead(self, amount: int, offset: int) -> bytes:
        first = offset // SQLITE_PAGE_BYTES
        end = -(-(offset + amount) // SQLITE_PAGE_BYTES)
        pages = super().xRead((end - first) * SQLITE_PAGE_BYTES, first * SQLITE_PAGE_BYTES)
        if not pages and not self.xFileSize():
            return pages  # about to be made
        for number in range(first, end):
            at = (number - first) * SQLITE_PAGE_BYTES
            self._prove(number, pages[at : at + SQLITE_PAGE_BYTES])
        start = offset - first * SQLITE_PAGE_BYTES
        return pages[start : start + amount]

    def _prove(self, number: int, page: bytes) -> None:
        if number == 0 and page[RESERVED_AT : RESERVED_AT + 1] == b"\0":
            raise ForeignError("its pages have no checksums")
        if len(page) < SQLITE_PAGE_BYTES or page[-CHECKSUM_BYTES:] != _page_checksum(number, page):
            raise apsw.CorruptError(f"page {number}: wrong checksum")

    def xWrite(self, data: bytes, offset: int) -> None:
        number = offset // SQLITE_PAGE_BYTES
        super().xWrite(data[:-CHECKSUM_BYTES] + _page_checksum(number, data), offset)


def _page_checksum(number: int, page: bytes) -> bytes:
    place = number.to_bytes(CHECKSUM_BYTES, "little")
    return checksum(page[:-CHECKSUM_BYTES] + place).to_bytes(CHECKSUM_BYTES, "little")


class _Log(apsw.VFSFile):
    """The write-ahead log: a header and frames, each a header and a page, chained by checksums."""

    def __init__(self, vfs: str, filename: apsw.URIFilename | str | None, flags: list[int]) -> None:
        super().__init__(vfs, filename, flags)
        self._written = -1
        """Place of the newest write; below 0 while this connection has written nothing."""
        self._unsummed: set[int] = set()
        """Frames of this connection's transaction that get their checksums only at its end: those
        whose page was written again, and all after them."""

    def xRead(self, amount: int, offset: int) -> bytes:
        frame, within = divmod(offset - LOG_HEADER.size, FRAME_BYTES)
        if amount == SQLITE_PAGE_BYTES and within == FRAME_HEADER_BYTES:
            return self._page(frame)
        data = super().xRead(amount, offset)
        if len(data) < amount:
            return data  # the log ends here
        if offset == 0:
            self._prove_header(data)
        elif amount == FRAME_BYTES and within == 0 and self._written < 0:
            self._prove_end(frame, data)
        return data

    def _page(self, frame: int) -> bytes:
        content = super().xRead(FRAME_BYTES, LOG_HEADER.size + frame * FRAME_BYTES)
        if frame not in self._unsummed and not self._follows(frame, content):
            raise apsw.CorruptError(f"frame {frame} of its log: wrong checksum")
        return content[FRAME_HEADER_BYTES:]

    def _prove_header(self, header: bytes) -> None:
        """Else SQLite would take the log for an empty one."""
        magic, *_, first, second = LOG_HEADER.unpack(header)
        sums = log_sums(Sums(0, 0), header[:LOG_HEADER_SUMMED_BYTES])
        if self.xFileSize() > LOG_HEADER.size and (magic, sums) != (LOG_MAGIC, (first, second)):
            raise apsw.CorruptError("header of its log: wrong checksum")

    def _prove_end(self, frame: int, content: bytes) -> None:
        """SQLite takes over a log up to the first bad frame: no commit may lie in or behind it."""
        salts = super().xRead(8, LOG_SALTS_AT)
        header = content[:FRAME_HEADER_BYTES]
        if header[FRAME_SALTS] == salts and self._follows(frame, content):
            return
        while len(header) == FRAME_HEADER_BYTES:
            if header[FRAME_SALTS] == salts and any(header[FRAME_COMMITS]):
                raise apsw.CorruptError(f"its log: a commit at frame {frame} cannot be reached")
            frame += 1
            header = super().xRead(FRAME_HEADER_BYTES, LOG_HEADER.size + frame * FRAME_BYTES)

    def _follows(self, frame: int, content: bytes) -> bool:
        """Whether a frame's checksum follows from the one before and from what it holds."""
        if len(content) < FRAME_BYTES:
            return False
        place = LOG_HEADER.size + frame * FRAME_BYTES
        before_at = place - FRAME_BYTES + FRAME_SUMS_AT if frame else place - SUMS.size
        before = Sums(*SUMS.unpack(super().xRead(SUMS.size, before_at)))
        summed = content[:FRAME_HEADER_SUMMED_BYTES] + content[FRAME_HEADER_BYTES:]
        return log_sums(before, summed) == SUMS.unpack_from(content, FRAME_SUMS_AT)

    def xWrite(self, data: bytes, offset: int) -> None:
        super().xWrite(data, offset)
        frame, within = divmod(offset - LOG_HEADER.size, FRAME_BYTES)
        if within == 0 and any(data[FRAME_HEADER_SUMMED_BYTES:]):
            self._unsummed.discard(frame)
        elif within == 0 or self._written != offset - FRAME_HEADER_BYTES:
            self._unsummed.add(frame)
        self._written = offset


class _ProvenFiles(apsw.VFS):
    """The operating system's files, but those that hold an index's pages proved."""

    def __init__(self) -> None:
        super().__init__("timefs", "")

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> apsw.VFSFile:
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return _Database("", name, flags)
        return (_Log if flags[0] & apsw.SQLITE_OPEN_WAL else apsw.VFSFile)("", name, flags)


_PROVEN_FILES: Final = _ProvenFiles()
"""Registered for as long as it lives."""


class Connection(apsw.Connection):
    """A connection to an index."""

    def rows(self, question: str, *values: Value) -> list[Any]:
        """The rows of a SELECT."""
        return list(self.each(question, *values))

    def row(self, question: str, *values: Value) -> Any:
        """The first row of a SELECT; None if it has none."""
        return next(self.each(question, *values), None)

    def each(self, question: str, *values: Value) -> Iterator[Any]:
        """The rows of a SELECT one by one, for those that may be too many to hold."""
        return self.execute(question, values)

    def change(self, statement: str, *values: Value) -> None:
        """Run a statement that has no rows."""
        self.execute(statement, values)

    def change_many(self, statement: str, rows: Iterable[Sequence[Value]]) -> None:
        """Run a statement once for each row of values."""
        self.executemany(statement, rows)


def connect(path: Path) -> Connection:
    """A connection to the database at a path, which is made if it is not there.

    Raises:
        apsw.Error: it cannot be opened, or is damaged.
        TimefsError: SQLite cannot have its name.
    """
    try:
        connection = Connection(str(path), vfs="timefs")
    except UnicodeEncodeError as error:
        raise TimefsError(
            f"{path}: SQLite needs a name in UTF-8; name one with --cache DIR"
        ) from error
    try:
        connection.set_busy_timeout(BUSY_SECONDS * 1000)
        connection.reserve_bytes(reserve=CHECKSUM_BYTES)
        for setting in _SETTINGS:
            connection.change(f"PRAGMA {setting}")
    except apsw.Error:
        with suppress(apsw.Error):  # it meets the same damage
            connection.close()
        raise
    return connection
