"""The VHDX log: replayed in memory, never written.

Defined here and only here: finding the log's active sequence and what its entries put over the
file. Used by timefs.guest.vhdx. Immutable and thread-safe. Each sector of the log is read a fixed
number of times, whatever its entries claim.

Source: [MS-VHDX] 2.3 Log, 3.1 (replay).
"""

import struct
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import pairwise
from typing import Final, NamedTuple

from google_crc32c import extend as _extend  # pyright: ignore[reportUnknownVariableType]  # untyped
from google_crc32c import value as _crc32c  # pyright: ignore[reportUnknownVariableType]  # untyped

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage, Image, read_exactly
from timefs.guest.joined import JoinedImage, Piece

SECTOR_BYTES: Final = 4096
LOG_BYTES_MAX: Final = 64 << 20
PATCHES_MAX: Final = 1 << 16
"""More than a log of the usual mebibyte can hold."""

SIGNATURE: Final = b"loge"
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
    descriptors: int
    flushed_bytes: int
    """The file had at least this size when the entry was written."""
    last_bytes: int
    """The file must have at least this size after replay."""


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

    def active(self) -> list[LogEntry]:
        """The sequence with the highest number whose newest entry points back to its oldest."""
        found = self._entries()
        begins: dict[int, int] = {}
        """By where an entry is, where the first of those is that lead to it one after another."""
        for entry in sorted(found.values(), key=lambda entry: entry.sequence):
            begin = begins.setdefault(entry.offset, entry.offset)
            following = found.get(self._end(entry))
            if following is not None and following.sequence == entry.sequence + 1:
                begins[following.offset] = begin
        for head in sorted(found.values(), key=lambda entry: -entry.sequence):
            tail = found.get(head.tail)
            if tail is None or tail.sequence > head.sequence:
                continue
            if begins[tail.offset] == begins[head.offset]:
                return [*self._between(found, tail, head), head]
        return []

    def _end(self, entry: LogEntry) -> int:
        return (entry.offset + entry.length) % len(self._content)

    def _between(
        self, found: dict[int, LogEntry], tail: LogEntry, head: LogEntry
    ) -> Iterator[LogEntry]:
        entry = tail
        while entry is not head:
            yield entry
            entry = found[self._end(entry)]

    def _entries(self) -> dict[int, LogEntry]:
        """The whole and right entries by where they begin.

        No sector of an entry begins as an entry does, but its first. So none reaches beyond where
        the next begins, and each sector is summed for one entry at most.
        """
        size = len(self._content)
        starts = [
            offset
            for offset in range(0, size, SECTOR_BYTES)
            if self._content.startswith(SIGNATURE, offset)
        ]
        found: dict[int, LogEntry] = {}
        for offset, following in pairwise((*starts, *(start + size for start in starts[:1]))):
            entry = self._entry(offset, following - offset)
            if entry is not None:
                found[offset] = entry
        return found

    def _entry(self, offset: int, length_max: int) -> LogEntry | None:
        """The entry at an offset, if a whole and right one is there."""
        fields = ENTRY.unpack_from(self._content, offset)
        _, _, length, tail, sequence, count, _, guid, flushed, last = fields
        if guid != self._guid or sequence == 0:
            return None
        if length % SECTOR_BYTES or not SECTOR_BYTES <= length <= length_max:
            return None
        if tail % SECTOR_BYTES or tail >= len(self._content):
            return None
        if _HEADER_BYTES + count * _DESCRIPTOR_BYTES > length:
            return None
        if not self._checked(offset, length):
            return None
        return LogEntry(offset, length, tail, sequence, count, flushed, last)

    def _checked(self, offset: int, length: int) -> bool:
        """As `checked`, without a copy of what may be the whole log."""
        head = self._take(offset, SECTOR_BYTES)
        got = int(_crc32c(head[:4] + bytes(4) + head[8:]))  # pyright: ignore[reportUnknownArgumentType]
        for at in range(offset + SECTOR_BYTES, offset + length, SECTOR_BYTES):
            got = int(_extend(got, self._take(at, SECTOR_BYTES)))  # pyright: ignore[reportUnknownArgumentType]
        return got == int.from_bytes(head[4:8], "little")

    def patches(self, entry: LogEntry) -> Iterator[Patch]:
        """What an entry puts where, in order."""
        where = f"VHDX log entry {entry.sequence}"
        data_at = -(-(_HEADER_BYTES + entry.descriptors * _DESCRIPTOR_BYTES) // SECTOR_BYTES)
        data_at *= SECTOR_BYTES
        for number in range(entry.descriptors):
            at = entry.offset + _HEADER_BYTES + number * _DESCRIPTOR_BYTES
            descriptor = self._take(at, _DESCRIPTOR_BYTES)
            signature, tail, lead, offset, sequence = DESCRIPTOR.unpack(descriptor)
            if sequence != entry.sequence or offset % SECTOR_BYTES:
                raise CorruptError(f"{where}: descriptor {number} is not the entry's own")
            if signature == b"zero":
                if lead % SECTOR_BYTES or offset + lead > 1 << 63:
                    raise CorruptError(f"{where}: zeros of {lead} bytes are not whole sectors")
                yield Patch(offset, lead, None)
            elif signature == b"desc":
                sector = self._take(entry.offset + data_at, SECTOR_BYTES)
                data_at += SECTOR_BYTES
                written = int.from_bytes(sector[-4:] + sector[4:8], "little")
                if data_at > entry.length or sector[:4] != b"data" or written != sequence:
                    raise CorruptError(f"{where}: data sector of descriptor {number} is torn")
                yield Patch(offset, SECTOR_BYTES, struct.pack("<Q", lead) + sector[8:-4] + tail)
            else:
                raise CorruptError(f"{where}: descriptor {number}: unknown kind {signature!r}")


def replay(container: Image, offset: int, length: int, guid: bytes) -> Image:
    """The file as it is after its log has been replayed.

    Raises:
        CorruptError: the log cannot be replayed.
        UnsupportedError: it holds more than this version replays.
    """
    if not 0 < length <= LOG_BYTES_MAX or length % SECTOR_BYTES:
        raise CorruptError(f"VHDX log: length: expected at most {LOG_BYTES_MAX}, got {length}")
    log = _Log(read_exactly(container, offset, length, "VHDX log"), guid)
    entries = log.active()
    if not entries:
        raise CorruptError("VHDX log: it must be replayed, and holds no whole sequence of entries")
    flushed = max(entry.flushed_bytes for entry in entries)
    if flushed > container.size:
        raise CorruptError(
            f"VHDX log: expected a file of at least {flushed} bytes, got {container.size}"
        )
    count = sum(entry.descriptors for entry in entries)
    if count > PATCHES_MAX:
        raise UnsupportedError(f"VHDX log: expected at most {PATCHES_MAX} changes, got {count}")
    patches = [patch for entry in entries for patch in log.patches(entry)]
    size = max(container.size, entries[-1].last_bytes)
    return JoinedImage(size, _patched(container, patches, size))


def _patched(container: Image, patches: list[Patch], size: int) -> Iterator[Piece]:
    """The file's own bytes and those of the patches over them; what is between is zeros."""
    end = 0
    for start, stop, patch in _topmost(patches, size):
        if start > end:
            yield Piece(end, min(start, container.size) - end, container, end)
        if patch.content is not None:
            yield Piece(start, stop - start, BytesImage(patch.content), start - patch.offset)
        end = stop
    yield Piece(end, container.size - end, container, end)


def _topmost(patches: list[Patch], size: int) -> Iterator[tuple[int, int, Patch]]:
    """(start, end, patch) of what no later patch covers, in order."""
    begins = sorted(range(len(patches)), key=lambda number: patches[number].offset)
    edges = sorted(
        {min(at, size) for one in patches for at in (one.offset, one.offset + one.length)}
    )
    above: list[int] = []
    """The patches that reach here, by number from the last, and some that end before."""
    reached = 0
    for start, end in pairwise(edges):
        while reached < len(begins) and patches[begins[reached]].offset <= start:
            heappush(above, -begins[reached])
            reached += 1
        while above and patches[-above[0]].offset + patches[-above[0]].length <= start:
            heappop(above)
        if above:
            yield start, end, patches[-above[0]]
