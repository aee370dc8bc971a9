"""Partitions: MBR (logical ones too) and GPT, as images with numbers and types.

Defined here and only here. Used by timefs.guest.disktree. Immutable and thread-safe.

Source: UEFI Specification 2.10, chapter 5 (GPT, protective MBR).
"""

import struct
import uuid
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, Image, MappedImage

MBR_ENTRY: Final = struct.Struct("<B3sB3sII")
MBR_TABLE: Final = 446
MBR_SIGNATURE: Final = b"\x55\xaa"
EXTENDED: Final = {0x05, 0x0F, 0x85}
PROTECTIVE: Final = 0xEE
LOGICAL_MAX: Final = 128

GPT_SIGNATURE: Final = b"EFI PART"
GPT_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
GPT_ENTRY: Final = struct.Struct("<16s16sQQQ72s")
GPT_ENTRIES_MAX: Final = 1024
GPT_ENTRY_BYTES_MAX: Final = 4096
SECTOR_SIZES: Final = (512, 4096)

BESIDE_GPT: Final = {
    uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b").bytes_le,  # EFI system
    uuid.UUID("e3c9e316-0b5c-4db8-817d-f92df00215ae").bytes_le,  # Microsoft reserved
    uuid.UUID("de94bba4-06d1-4d4d-a16a-bfd50179d6ac").bytes_le,  # Windows recovery
    uuid.UUID("21686148-6449-6e6f-744e-656564454649").bytes_le,  # BIOS boot
    uuid.UUID("bc13c2ff-59e6-4262-a352-b275fd6f7172").bytes_le,  # Linux extended boot
    uuid.UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f").bytes_le,  # Linux swap
}
BESIDE_MBR: Final = {0x27, 0xEF, 0x82}
"""Recovery, EFI system, swap."""

_DYNAMIC = "a Windows dynamic disk (LDM): this version does not read its volumes"
_POOL = "a part of a Windows Storage Spaces pool: this version does not read its volumes"
NOT_PLAIN_MBR: Final = {0x42: _DYNAMIC}
NOT_PLAIN_GPT: Final = {
    uuid.UUID("5808c8aa-7e8f-42e0-85d2-e1e90434cfb3").bytes_le: _DYNAMIC,
    uuid.UUID("af9b60a0-1431-4f62-bc68-3311714a69ad").bytes_le: _DYNAMIC,
    uuid.UUID("e75caf8f-f680-4cee-afa3-b001e56efc2d").bytes_le: _POOL,
}
"""Partitions whose bytes are no volume, even where one seems to begin."""


class Partition(NamedTuple):
    """A partition of a disk."""

    number: int
    """As the guest counts: from 1; logical ones from 5."""
    name: str
    """The GPT's name; empty on an MBR."""
    beside: bool
    """Whether it serves booting, recovery or swapping rather than holding a volume of files."""
    start: int
    length: int
    """Bytes; as the table says, even if that is beyond the disk."""
    problem: str = ""
    """Why nothing in it can be shown."""


class PartitionImage(MappedImage):
    """The bytes of a partition."""

    def __init__(self, disk: Image, partition: Partition) -> None:
        super().__init__(partition.length)
        self._disk = disk
        self._start = partition.start

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, ExtentKind.DATA, self._disk, self._start + offset)


def partition_image(disk: Image, partition: Partition) -> Image:
    """The bytes of a partition.

    Raises:
        CorruptError: it does not lie within the disk, or its place is not known.
        UnsupportedError: it is a part of something larger.
    """
    if partition.problem:
        kind = UnsupportedError if partition.start else CorruptError
        raise kind(partition.problem)
    if partition.length <= 0 or partition.start + partition.length > disk.size:
        raise CorruptError(
            f"partition {partition.number}: expected it within the disk's {disk.size} bytes, got "
            f"{partition.start} + {partition.length}"
        )
    return PartitionImage(disk, partition)


def partitions(disk: Image, sector_bytes: int = 512) -> list[Partition]:
    """The partitions of a disk; none if it has no partition table.

    An MBR counts in sectors of the size given; where a GPT lies shows the size it counts in.

    Raises:
        CorruptError: there is a GPT, and both copies are damaged.
    """
    sector = disk.read(0, 512)
    entries = _mbr_entries(sector) if sector[510:512] == MBR_SIGNATURE else []
    if any(kind == PROTECTIVE for kind, _, _ in entries):
        table = _gpt(disk)
        if table is None:
            raise CorruptError("GPT: both headers or their tables are damaged: wrong checksum")
        return table
    if not any(kind and count for kind, _, count in entries):
        return _gpt(disk) or []  # the first sector was wiped
    if not _plausible(sector, entries, disk.size, sector_bytes):
        return []
    return _mbr(disk, entries, sector_bytes)


def gpt_sector_bytes(disk: Image) -> int | None:
    """The size of sector that the place of a disk's GPT shows, if it has one."""
    for sector_bytes in SECTOR_SIZES:
        if disk.read(sector_bytes, len(GPT_SIGNATURE)) == GPT_SIGNATURE:
            return sector_bytes
    return None


def _mbr_entries(sector: bytes) -> list[tuple[int, int, int]]:
    """(type, first sector, sectors) of the four entries."""
    found: list[tuple[int, int, int]] = []
    for number in range(4):
        _, _, kind, _, first, count = MBR_ENTRY.unpack_from(
            sector, MBR_TABLE + number * MBR_ENTRY.size
        )
        found.append((kind, first, count))
    return found


def _plausible(
    sector: bytes, entries: list[tuple[int, int, int]], size: int, sector_bytes: int
) -> bool:
    """A boot sector ends like an MBR: believe in a table only if its entries make sense."""
    flags = {sector[MBR_TABLE + number * MBR_ENTRY.size] for number in range(4)}
    used = [(first, count) for kind, first, count in entries if kind and count]
    inside = all(first > 0 and first * sector_bytes < size for first, _ in used)
    return bool(used) and inside and flags <= {0x00, 0x80}


def _mbr(disk: Image, entries: list[tuple[int, int, int]], sector_bytes: int) -> list[Partition]:
    found: list[Partition] = []
    logical: list[Partition] = []
    for number, (kind, first, count) in enumerate(entries, 1):
        if kind in EXTENDED:
            logical += _logical(disk, first, sector_bytes, 5 + len(logical))
        elif kind and count:
            found.append(_mbr_partition(number, kind, first * sector_bytes, count * sector_bytes))
    return found + logical


def _mbr_partition(number: int, kind: int, start: int, length: int) -> Partition:
    problem = NOT_PLAIN_MBR.get(kind, "")
    return Partition(number, "", kind in BESIDE_MBR, start, length, problem)


def _logical(disk: Image, extended: int, sector_bytes: int, number: int) -> list[Partition]:
    """The chain of extended boot records; a loop or a torn link ends it with an entry that says so.

    A record's partition counts from the record, the next record from the extended partition.
    """
    found: list[Partition] = []
    at, seen = extended, set[int]()
    while len(found) < LOGICAL_MAX:
        sector = disk.read(at * sector_bytes, 512)
        if at in seen or sector[510:512] != MBR_SIGNATURE:
            problem = f"extended partition: no link of its chain at sector {at}; others may be lost"
            return [*found, Partition(number + len(found), "", False, 0, 0, problem)]
        seen.add(at)
        (kind, first, count), (next_kind, following, _), *_ = _mbr_entries(sector)
        if kind and count:
            start, length = (at + first) * sector_bytes, count * sector_bytes
            found.append(_mbr_partition(number + len(found), kind, start, length))
        if next_kind not in EXTENDED or not following:
            break
        at = extended + following
    return found


def _gpt(disk: Image) -> list[Partition] | None:
    """The partitions of the first of the GPT's copies that is whole."""
    for sector_bytes in SECTOR_SIZES:
        for offset in (sector_bytes, disk.size - sector_bytes):
            table = _gpt_at(disk, offset, sector_bytes)
            if table is not None:
                return table
    return None


def _gpt_at(  # each return is one way of not being a GPT
    disk: Image, offset: int, sector_bytes: int
) -> list[Partition] | None:
    """The partitions of the GPT whose header is at an offset, if it is whole."""
    header = disk.read(max(offset, 0), sector_bytes)
    if len(header) < GPT_HEADER.size or header[:8] != GPT_SIGNATURE:
        return None
    fields = GPT_HEADER.unpack_from(header)
    _, _, length, expected, _, own, _, _, _, _, table_at, count, entry_bytes, table_crc = fields
    misplaced = own * sector_bytes != offset
    if misplaced or not GPT_HEADER.size <= length <= sector_bytes:
        return None
    if zlib.crc32(header[:16] + bytes(4) + header[20:length]) != expected:
        return None
    if count > GPT_ENTRIES_MAX or not GPT_ENTRY.size <= entry_bytes <= GPT_ENTRY_BYTES_MAX:
        return None
    table = disk.read(table_at * sector_bytes, count * entry_bytes)
    if len(table) != count * entry_bytes or zlib.crc32(table) != table_crc:
        return None
    made = (_gpt_partition(table, number, entry_bytes, sector_bytes) for number in range(count))
    return [partition for partition in made if partition is not None]


def _gpt_partition(
    table: bytes, number: int, entry_bytes: int, sector_bytes: int
) -> Partition | None:
    kind, _, first, last, _, name = GPT_ENTRY.unpack_from(table, number * entry_bytes)
    if not any(kind):
        return None
    text = name.decode("utf-16-le", errors="replace").partition("\0")[0]
    length = (last - first + 1) * sector_bytes
    start, problem = first * sector_bytes, NOT_PLAIN_GPT.get(kind, "")
    return Partition(number + 1, text, kind in BESIDE_GPT, start, length, problem)
