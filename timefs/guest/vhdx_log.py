"""The VHDX log: replayed in memory, never written.

Defined here and only here: finding the log's active sequence and the overlay that its entries make
over the file. Used by timefs.guest.vhdx. The overlay is immutable and thread-safe.

Source: [MS-VHDX] 2.3 Log, 3.1 (replay).
"""

import struct
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple

from google_crc32c import value as _crc32c  # pyright: ignore[reportUnknownVariableType]  # untyped

from store.errors import CorruptError
from store.image import BytesImage, Extent, ExtentKind, Image, MappedImage, read_exactly

SECTOR_BYTES: Final = 4096
LOG_BYTES_MAX: Final = 64 << 20
ENTRY: Final = struct.Struct("<4sIIIQII16sQQ")
DESCRIPTOR: Final = struct.Struct("<4s4sQQQ")
_HEADER_BYTES: Final = 64
_DESCRIPTOR_BYTES: Final = 32


class LogEntry(NamedTuple):
    """One valid entry."""

    offset: int
    """In the log."""
    length: int
    tail: int
    sequence: int
    flushed_bytes: int
    """The file had at least this size when the entry was written."""
    last_bytes: int
    """The file must have at least this size after replay."""
    content: bytes


class Patch(NamedTuple):
    """What replay puts at an offset of the file: 4 KiB of bytes, or zeros of some length."""

    offset: int
    length: int
    content: bytes | None


def checked(content: bytes) -> bool:
    """Whether the CRC-32C at byte 4 is that of the content with the CRC as zeros."""
    expected = int.from_bytes(content[4:8], "little")
    got = int(_crc32c(content[:4] + bytes(4) + content[8:]))  # pyright: ignore[reportUnknownArgumentType]
    return got == expected


class _Log:
    """The log region as a ring."""

    def __init__(self, content: bytes, guid: bytes) -> None:
        self._content = content
        self._guid = guid

    def _take(self, offset: int, length: int) -> bytes:
        offset %= len(self._content)
        first = self._content[offset : offset + length]
        return first + self._content[: length - len(first)]

    def entry(self, offset: int) -> LogEntry | None:
        """The entry at an offset, if a whole and right one is there."""
        head = self._take(offset, _HEADER_BYTES)
        signature, _, length, tail, sequence, count, _, guid, flushed, last = ENTRY.unpack(head)
        if signature != b"loge" or guid != self._guid or sequence == 0:
            return None
        if length % SECTOR_BYTES or not SECTOR_BYTES <= length <= len(self._content):
            return None
        if tail % SECTOR_BYTES or tail >= len(self._content):
            return None
        if _HEADER_BYTES + count * _DESCRIPTOR_BYTES > length:
            return None
        content = self._take(offset, length)
        if not checked(content):
            return None
        return LogEntry(offset, length, tail, sequence, flushed, last, content)

    def active(self) -> list[LogEntry]:
        """The sequence with the highest number whose newest entry points back to its oldest."""
        found: dict[int, LogEntry] = {}
        for offset in range(0, len(self._content), SECTOR_BYTES):
            if self._content[offset : offset + 4] == b"loge":
                entry = self.entry(offset)
                if entry is not None:
                    found[offset] = entry
        for head in sorted(found.values(), key=lambda entry: -entry.sequence):
            sequence = self._sequence(found, head)
            if sequence:
                return sequence
        return []

    def _sequence(self, found: dict[int, LogEntry], head: LogEntry) -> list[LogEntry]:
        """The entries from the head's tail on to the head, if they are all there."""
        entries: list[LogEntry] = []
        offset = head.tail
        while len(entries) < len(found):
            entry = found.get(offset)
            if entry is None or (entries and entry.sequence != entries[-1].sequence + 1):
                return []
            entries.append(entry)
            if entry is head:
                return entries
            offset = (offset + entry.length) % len(self._content)
        return []


def replay(container: Image, offset: int, length: int, guid: bytes) -> Image:
    """The file as it is after its log has been replayed.

    Raises:
        CorruptError: the log cannot be replayed.
    """
    if not 0 < length <= LOG_BYTES_MAX or length % SECTOR_BYTES:
        raise CorruptError(f"VHDX log: length: expected at most {LOG_BYTES_MAX}, got {length}")
    ring = _Log(read_exactly(container, offset, length, "VHDX log"), guid)
    entries = ring.active()
    if not entries:
        raise CorruptError("VHDX log: it must be replayed, and holds no whole sequence of entries")
    flushed = max(entry.flushed_bytes for entry in entries)
    if flushed > container.size:
        raise CorruptError(
            f"VHDX log: expected a file of at least {flushed} bytes, got {container.size}"
        )
    patches = [patch for entry in entries for patch in _patches(entry)]
    return ReplayedLog(container, patches, max(container.size, entries[-1].last_bytes))


def _patches(entry: LogEntry) -> Iterator[Patch]:
    """What an entry puts where, in order."""
    where = f"VHDX log entry {entry.sequence}"
    count = int.from_bytes(entry.content[24:28], "little")
    data_at = -(-(_HEADER_BYTES + count * _DESCRIPTOR_BYTES) // SECTOR_BYTES) * SECTOR_BYTES
    for number in range(count):
        at = _HEADER_BYTES + number * _DESCRIPTOR_BYTES
        signature, tail, lead, offset, sequence = DESCRIPTOR.unpack_from(entry.content, at)
        if sequence != entry.sequence or offset % SECTOR_BYTES:
            raise CorruptError(f"{where}: descriptor {number} is not the entry's own")
        if signature == b"zero":
            if lead % SECTOR_BYTES or offset + lead > 1 << 63:
                raise CorruptError(f"{where}: zeros of {lead} bytes are not whole sectors")
            yield Patch(offset, lead, None)
        elif signature == b"desc":
            sector = entry.content[data_at : data_at + SECTOR_BYTES]
            data_at += SECTOR_BYTES
            written = int.from_bytes(sector[-4:] + sector[4:8], "little")
            if len(sector) < SECTOR_BYTES or sector[:4] != b"data" or written != sequence:
                raise CorruptError(f"{where}: data sector of descriptor {number} is torn")
            yield Patch(offset, SECTOR_BYTES, struct.pack("<Q", lead) + sector[8:-4] + tail)
        else:
            raise CorruptError(f"{where}: descriptor {number}: unknown kind {signature!r}")


class ReplayedLog(MappedImage):
    """A file with patches over it, the later ones on top."""

    def __init__(self, container: Image, patches: list[Patch], size: int) -> None:
        super().__init__(size)
        self._container = container
        data: dict[int, bytes] = {}
        zeros: list[tuple[int, int]] = []
        for offset, length, content in patches:
            if content is None:
                end = offset + length
                data = {at: kept for at, kept in data.items() if not offset <= at < end}
                zeros.append((offset, end))
            else:
                data[offset] = content
        self._zeros = zeros
        self._starts = sorted(data)
        self._data = data

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        at = offset
        index = bisect_left(self._starts, offset - SECTOR_BYTES + 1)
        while at < end:
            start = self._starts[index] if index < len(self._starts) else end
            if start > at:
                yield from self._beneath(at, min(start, end))
                at = min(start, end)
            else:
                stop = min(start + SECTOR_BYTES, end)
                patch = BytesImage(self._data[start])
                yield Extent(at, stop - at, ExtentKind.DATA, patch, at - start)
                at = stop
                index += 1

    def _beneath(self, start: int, end: int) -> Iterator[Extent]:
        """Zeros where the log or nothing but the file's growth put them, else the file."""
        edges = {start, end}
        for first, last in [*self._zeros, (self._container.size, self.size)]:
            edges.update(edge for edge in (first, last) if start < edge < end)
        ordered = sorted(edges)
        for first, last in pairwise(ordered):
            zero = first >= self._container.size or any(
                a <= first and last <= b for a, b in self._zeros
            )
            kind = ExtentKind.ZERO if zero else ExtentKind.DATA
            backing = None if zero else self._container
            yield Extent(first, last - first, kind, backing, 0 if zero else first)
