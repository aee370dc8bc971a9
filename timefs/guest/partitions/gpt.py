"""The GPT: a header and a table of entries at either end of a disk, with checksums.

Defined here and only here: `Gpt`, `read_gpt` and `gpt_damage`. Used through
timefs.guest.partitions. Pure functions.

Source: UEFI Specification 2.10, 5.3.
"""

import struct
import uuid
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from store.image import Image
from timefs.guest.partitions.partition import DYNAMIC, POOL, Partition, kept

SIGNATURE: Final = b"EFI PART"
HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
ENTRY: Final = struct.Struct("<16s16sQQQ72s")
ENTRY_BYTES_MAX: Final = 4096
TABLE_BYTES_MAX: Final = 2 << 20
SECTOR_SIZES: Final = (512, 4096)

BESIDE: Final = {
    uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").bytes_le,  # EFI system
    uuid.UUID("e3c9e316-0b5c-4db8-817d-f92df00215ae").bytes_le,  # Microsoft reserved
    uuid.UUID("de94bba4-06d1-4d4d-a16a-bfd50179d6ac").bytes_le,  # Windows recovery
    uuid.UUID("21686148-6449-6e6f-744e-656564454649").bytes_le,  # BIOS boot
    uuid.UUID("bc13c2ff-59e6-4262-a352-b275fd6f7172").bytes_le,  # Linux extended boot
    uuid.UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f").bytes_le,  # Linux swap
}

NOT_PLAIN: Final = {
    uuid.UUID("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3").bytes_le: DYNAMIC,
    uuid.UUID("af9b60a0-1431-4f62-bc68-3311714a69ad").bytes_le: DYNAMIC,
    uuid.UUID("e75caf8f-f680-4cee-afa3-b001e56efc2d").bytes_le: POOL,
}
"""Partitions whose bytes are no volume, even where one seems to begin."""


class Gpt(NamedTuple):
    """What the first whole copy says."""

    partitions: list[Partition]
    sector_bytes: int
    """In which it counts, as its place shows."""
    primary: bool
    """Whether the copy at the start is the whole one."""


def read_gpt(disk: Image) -> Gpt | None:
    """The first of a disk's copies that is whole."""
    for primary in (True, False):
        for sector_bytes in SECTOR_SIZES:
            for place in _places(disk, sector_bytes, primary=primary):
                found = _copy(disk, place, sector_bytes)
                if found is not None:
                    return Gpt(kept(found), sector_bytes, primary)
    return None


def gpt_damage(disk: Image) -> str | None:
    """Where a copy is that is not whole, in words; None if there is no trace of any."""
    for sector_bytes in SECTOR_SIZES:
        for place in (sector_bytes, disk.size - sector_bytes):
            if disk.read(max(place, 0), len(SIGNATURE)) == SIGNATURE:
                return (
                    f"GPT: both headers or their tables are damaged: the one at byte {place} has a "
                    "wrong checksum or place"
                )
    return None


def _places(disk: Image, sector_bytes: int, *, primary: bool) -> Iterator[int]:
    """Where a copy may be; a disk that has grown has its backup where the first header says."""
    if primary:
        yield sector_bytes
        return
    yield disk.size - sector_bytes
    header = disk.read(sector_bytes, HEADER.size)
    if len(header) == HEADER.size and header[:8] == SIGNATURE:
        yield HEADER.unpack(header)[6] * sector_bytes


def _copy(disk: Image, place: int, sector_bytes: int) -> list[Partition] | None:
    """The partitions of the copy whose header is at an offset, if it is whole."""
    header = disk.read(max(place, 0), sector_bytes)
    if len(header) < HEADER.size or header[:8] != SIGNATURE:
        return None
    fields = HEADER.unpack_from(header)
    _, _, length, expected, _, own, _, _, _, _, table_at, count, entry_bytes, table_crc = fields
    if own * sector_bytes != place or not HEADER.size <= length <= sector_bytes:
        return None
    if zlib.crc32(header[:16] + bytes(4) + header[20:length]) != expected:
        return None
    if not ENTRY.size <= entry_bytes <= ENTRY_BYTES_MAX or count * entry_bytes > TABLE_BYTES_MAX:
        return None
    table = disk.read(table_at * sector_bytes, count * entry_bytes)
    if len(table) != count * entry_bytes or zlib.crc32(table) != table_crc:
        return None
    made = (_partition(table, number, entry_bytes, sector_bytes) for number in range(count))
    return [partition for partition in made if partition is not None]


def _partition(table: bytes, number: int, entry_bytes: int, sector_bytes: int) -> Partition | None:
    kind, _, first, last, _, name = ENTRY.unpack_from(table, number * entry_bytes)
    if not any(kind):
        return None
    text = name.decode("utf-16-le", errors="replace").partition("\0")[0]
    length = (last - first + 1) * sector_bytes
    start, problem = first * sector_bytes, NOT_PLAIN.get(kind, "")
    return Partition(number + 1, text, kind in BESIDE, start, length, problem)
