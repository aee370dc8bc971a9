"""Folders of FAT12, FAT16 and FAT32: entries of 32 bytes, long names before short ones.

Defined here and only here: `fat_records` and `fat_label`. Used by `node` and `volume`. Stateless.

Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03, FAT Directory Structure, Long
Directory Entries. Bits 3 and 4 of byte 12, which Windows NT uses for lower-case short names: the
behaviour of Windows and Linux.
"""

import struct
from collections.abc import Iterator
from typing import Final

from store.errors import CorruptError
from timefs.guest.fat.record import Located, Record, possible, shown, time_ns

FOLDER: Final = 0x10
LABEL: Final = 0x08
LONG: Final = 0x0F
LONG_MASK: Final = 0x3F
FREE: Final = 0xE5
KANJI: Final = 0x05
"""Stands for a first byte that would mean a free entry."""

LOWER_BASE: Final = 0x08
LOWER_EXTENSION: Final = 0x10
DOTS: Final = 2
"""A folder begins with `.` and `..`; one that is damaged ends nothing."""

LAST_PIECE: Final = 0x40
PIECES_MAX: Final = 20

_ENTRY: Final = struct.Struct("<8s3sBBBHHHHHHHI")


class _Long:
    """The pieces of a long name as they come, the last one first."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._next = 0
        self._checksum = 0

    def add(self, entry: bytes) -> None:
        order = entry[0]
        if order & LAST_PIECE:
            self._pieces, self._next = [], order & ~LAST_PIECE
            self._checksum = entry[13]
        if order & ~LAST_PIECE != self._next or not 0 < self._next <= PIECES_MAX:
            self._next = 0
            return
        if entry[13] != self._checksum:
            self._next = 0
            return
        self._pieces.append(entry[1:11] + entry[14:26] + entry[28:32])
        self._next -= 1
        if self._next == 0:
            self._next = -1

    def take(self, short: bytes) -> bytes | None:
        """The name, if it is whole and belongs to the short one."""
        whole, self._next = self._next == -1, 0
        if not whole or self._checksum != _checksum(short):
            return None
        units = b"".join(reversed(self._pieces))
        for at in range(0, len(units), 2):
            if units[at : at + 2] == b"\0\0":
                return shown(units[:at])
        return shown(units)


def _checksum(short: bytes) -> int:
    checksum = 0
    for byte in short:
        checksum = ((checksum & 1) << 7) + (checksum >> 1) + byte & 0xFF
    return checksum


def fat_records(entries: Iterator[Located], *, wide: bool) -> Iterator[Record]:
    """The names in a folder's entries, without `.` and `..`; `wide`: cluster numbers have 32 bits.

    Raises:
        CorruptError: after all the others, if one cannot be a name.
    """
    long = _Long()
    refused: bytes | None = None
    for number, (place, entry) in enumerate(entries):
        if entry[0] == 0 and not (number < DOTS and entry[11] & FOLDER):
            break
        if entry[0] in (0, FREE):
            continue
        if entry[11] & LONG_MASK == LONG:
            long.add(entry)
            continue
        name = long.take(entry[:11])
        if entry[11] & LABEL or entry[:11].rstrip() in (b".", b".."):
            continue
        name = _short(entry) if name is None else name
        if name in (b".", b"..") or not possible(name):
            refused = name
        else:
            yield _record(name, place, entry, wide=wide)
    if refused is not None:
        raise CorruptError(f"FAT folder: {refused!a} cannot be a name")


def fat_record(entries: Iterator[Located], *, wide: bool) -> Record:
    """The file whose short entry is the first of these, without its name."""
    place, entry = next(entries)
    return _record(b"", place, entry, wide=wide)


def fat_label(entries: Iterator[Located]) -> str:
    """The volume's label, which the root folder holds; empty if it does not."""
    for _, entry in entries:
        if entry[0] == 0:
            break
        if entry[0] != FREE and entry[11] & LONG_MASK != LONG and entry[11] & LABEL:
            return entry[:11].decode("cp437").rstrip()
    return ""


def _short(entry: bytes) -> bytes:
    base, extension = entry[:8], entry[8:11]
    if base[0] == KANJI:
        base = bytes([FREE]) + base[1:]
    parts = [base.decode("cp437").rstrip(), extension.decode("cp437").rstrip()]
    if entry[12] & LOWER_BASE:
        parts[0] = parts[0].lower()
    if entry[12] & LOWER_EXTENSION:
        parts[1] = parts[1].lower()
    return ".".join(part for part in parts if part).encode()


def _record(name: bytes, place: int, entry: bytes, *, wide: bool) -> Record:
    (_, _, kind, _, hundredths, created_time, created_date, accessed_date, high,
     changed_time, changed_date, low, size) = _ENTRY.unpack(entry)  # fmt: skip
    folder = bool(kind & FOLDER)
    return Record(
        name=name,
        place=place,
        folder=folder,
        size=0 if folder else size,
        written_bytes=0 if folder else size,
        cluster=low | high << 16 if wide else low,
        together=False,
        created_ns=time_ns(created_date, created_time, hundredths),
        mtime_ns=time_ns(changed_date, changed_time),
        atime_ns=time_ns(accessed_date, 0),
    )
