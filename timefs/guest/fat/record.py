"""What a folder says of a file, in FAT and exFAT alike.

Defined here and only here: `Record`, entries, times and names. Used by `fat_folder`,
`exfat_folder` and `node`. Values; stateless.

Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03, Date and Time Formats. Dates that
no calendar has: the behaviour of the Linux kernel's vfat.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from store.image import Image, MappedImage
from timefs.guest.fat.boot import ENTRY_BYTES

SECOND_NS: Final = 1_000_000_000
TEN_MS_NS: Final = 10_000_000
PIECE_BYTES: Final = 64 << 10

ROOT_PLACE: Final = 0
"""The root has no entry; the boot sector lies where this one would be."""

_DAYS_TO_1980: Final = 3652
_DAY_SECONDS: Final = 86400
_YEAR_2100: Final = 120
"""From 1980: divisible by four, and no leap year."""

_DAYS_BEFORE_MONTH: Final = (0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334, 0, 0, 0)
"""By the four bits that hold the month; what is none counts as January."""

Located = tuple[int, bytes]
"""Where on the volume an entry lies, and its bytes."""


def entries_of(content: MappedImage) -> Iterator[Located]:
    """The entries of a folder."""
    for offset, length, _, volume, place in content.map(0, content.size):
        assert volume is not None  # nothing of a folder is left out
        end = place + min(length, content.size - offset)
        for at in range(place, end, PIECE_BYTES):
            yield from entries_at(volume, at, min(PIECE_BYTES, end - at))


def entries_at(volume: Image, place: int, length: int) -> Iterator[Located]:
    """The entries in one piece of a volume."""
    piece = volume.read(place, length)
    for at in range(0, len(piece) - ENTRY_BYTES + 1, ENTRY_BYTES):
        yield place + at, piece[at : at + ENTRY_BYTES]


class Record(NamedTuple):
    """One name of a folder and what belongs to it. Times are nanoseconds since 1970."""

    name: bytes
    place: int
    """Where on the volume its entry lies, in bytes: what identifies the file."""
    folder: bool
    size: int
    written_bytes: int
    cluster: int
    """0 if there is no content."""
    together: bool
    """Whether the content lies in one piece and the table says nothing about it."""
    created_ns: int
    mtime_ns: int
    atime_ns: int

    @property
    def where(self) -> str:
        if self.place == ROOT_PLACE:
            return "FAT root folder"
        kind = "folder" if self.folder else "file"
        return f"FAT {kind} whose entry is at byte {self.place}"


def time_ns(date: int, time: int, hundredths: int = 0, offset_minutes: int = 0) -> int:
    """A stored local time as if it were UTC, minus the offset where one is known.

    Whatever is stored is a time: one that was never set shows as the beginning of 1980, the 31st of
    April as the 1st of May.
    """
    year, month, day = date >> 9, max(1, date >> 5 & 15), max(1, date & 31)
    leap_days = (year + 3) // 4 - (year > _YEAR_2100)
    leap_days += year % 4 == 0 and year != _YEAR_2100 and month > 2
    days = _DAYS_TO_1980 + year * 365 + leap_days + _DAYS_BEFORE_MONTH[month] + day - 1
    minutes = (time >> 11) * 60 + (time >> 5 & 63) - offset_minutes
    seconds = days * _DAY_SECONDS + minutes * 60 + (time & 31) * 2
    return seconds * SECOND_NS + hundredths * TEN_MS_NS


def shown(units: bytes) -> bytes:
    """A name of UTF-16 units as bytes; lone surrogates stay (WTF-8)."""
    return units.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")


def possible(name: bytes) -> bool:
    """Whether any system can hold a name."""
    return bool(name) and not {0, 47} & {*name}
