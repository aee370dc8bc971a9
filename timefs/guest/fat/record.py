"""What a folder says of a file, in FAT and exFAT alike.

Defined here and only here: `Record`, entries, times and names. Used by `fat_folder`,
`exfat_folder` and `node`. Values; stateless.

Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03, Date and Time Formats.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from store.image import Image
from timefs.guest.fat.boot import ENTRY_BYTES

SECOND_NS: Final = 1_000_000_000
TEN_MS_NS: Final = 10_000_000
PIECE_BYTES: Final = 64 << 10


Located = tuple[int, bytes]
"""An entry's place, and its bytes."""


def entries_of(content: Image, cluster: int) -> Iterator[Located]:
    """The entries of a folder that begins at a cluster."""
    for offset in range(0, content.size, PIECE_BYTES):
        piece = content.read(offset, PIECE_BYTES)
        for at in range(0, len(piece) - ENTRY_BYTES + 1, ENTRY_BYTES):
            yield cluster << 32 | offset + at, piece[at : at + ENTRY_BYTES]


class Record(NamedTuple):
    """One name of a folder and what belongs to it. Times are nanoseconds since 1970."""

    name: bytes
    place: int
    """Its folder's first cluster and where in the folder it is: what identifies the file."""
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
        return f"FAT file in cluster {self.place >> 32} at {self.place & 0xFFFFFFFF}"


def time_ns(date: int, time: int, hundredths: int = 0, offset_minutes: int = 0) -> int:
    """A stored local time as if it were UTC, minus the offset where one is known; 0 if absurd."""
    try:
        moment = datetime(
            1980 + (date >> 9),
            date >> 5 & 15,
            date & 31,
            time >> 11,
            time >> 5 & 63,
            (time & 31) * 2,
            tzinfo=UTC,
        )
    except ValueError:
        return 0
    seconds = int(moment.timestamp()) - offset_minutes * 60
    return seconds * SECOND_NS + hundredths * TEN_MS_NS


def shown(units: bytes) -> bytes:
    """A name of UTF-16 units as bytes; lone surrogates stay (WTF-8)."""
    return units.decode("utf-16-le", "surrogatepass").encode("utf-8", "surrogatepass")


def possible(name: bytes) -> bool:
    """Whether any system can hold a name."""
    return bool(name) and not {0, 47} & {*name}
