"""VHDX: fixed, dynamic and differencing disks as images, the log replayed in memory.

Defined here and only here. Used by timefs.guest.detect. Immutable and thread-safe. The block table
and the sector bitmaps are read as needed, so memory does not grow with the disk.

Source: [MS-VHDX] 2.2 (headers, region table), 2.5 (BAT), 2.6 (metadata).
"""

import struct
import uuid
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, Image, read_exactly
from timefs.guest.beneath import beneath
from timefs.guest.bitmap import bit_runs
from timefs.guest.blocks import ABSENT, SINGLE, ZERO, BlockImage
from timefs.guest.siblings import Siblings
from timefs.guest.tables import Entries, Places, Table, Values
from timefs.guest.vhdx_log import checked, replay
from timefs.guest.vhdx_parent import ParentLocator, parse_locator

SIGNATURE: Final = b"vhdxfile"
MIB: Final = 1 << 20
HEADER: Final = struct.Struct("<4sIQ16s16s16sHHIQ")
HEADER_OFFSETS: Final = (64 << 10, 128 << 10)
HEADER_BYTES: Final = 4096
REGION_OFFSETS: Final = (192 << 10, 256 << 10)
REGION_TABLE_BYTES: Final = 64 << 10
REGION: Final = struct.Struct("<16sQII")
METADATA: Final = struct.Struct("<16sIIII")
ENTRIES_MAX: Final = 2047
BLOCK_BYTES_MAX: Final = 256 * MIB
DISK_BYTES_MAX: Final = 64 << 40
HAS_PARENT: Final = 2
REQUIRED: Final = 4


def _guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


BAT_REGION: Final = _guid("2dc27766-f623-4200-9d64-115e9bfd4a08")
METADATA_REGION: Final = _guid("8b7ca206-4790-4b9a-b8fe-575f050f886e")
FILE_PARAMETERS: Final = _guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
DISK_SIZE: Final = _guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
SECTOR_SIZE: Final = _guid("8141bf1d-a96f-4709-ba47-f233a8faab5f")
PHYSICAL_SECTOR_SIZE: Final = _guid("cda348c7-445d-4471-9cc9-e9885251c556")
DISK_ID: Final = _guid("beca12ab-b2e6-4523-93ef-c309e000c746")
PARENT_LOCATOR: Final = _guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
KNOWN_ITEMS: Final = {
    FILE_PARAMETERS,
    DISK_SIZE,
    SECTOR_SIZE,
    PHYSICAL_SECTOR_SIZE,
    DISK_ID,
    PARENT_LOCATOR,
}

FULLY_PRESENT: Final = 6
PARTIALLY_PRESENT: Final = 7
KINDS: Final = np.array([ABSENT, ZERO, ZERO, ZERO, SINGLE, ZERO, SINGLE, SINGLE], np.int64)
"""By state. Undefined, zero, unmapped, and unmapped as drafts of the format had it, all read as
zeros, never as the parent's bytes."""

BITMAP_BYTES: Final = MIB
BITMAP_SECTORS: Final = BITMAP_BYTES * 8


class Header(NamedTuple):
    """The current header's fields that matter here."""

    sequence: int
    data_guid: bytes
    """Changes whenever the disk's content may have: a child names its parent's."""
    log_guid: bytes
    log_length: int
    log_offset: int


class Region(NamedTuple):
    """A region of the file."""

    offset: int
    length: int


class Geometry(NamedTuple):
    """What the metadata says."""

    size: int
    block_bytes: int
    sector_bytes: int
    locator: ParentLocator | None
    """Of a differencing disk."""


def open_vhdx(container: Image, siblings: Siblings) -> "Vhdx":
    """The disk of a VHDX file.

    Raises:
        CorruptError: the file contradicts the format, its log cannot be replayed, or its parent is
            missing or was changed.
        UnsupportedError: it needs a feature that is not decoded.
    """
    container, bat, geometry = _opened(container)
    parent = None if geometry.locator is None else _parent(geometry.locator, siblings)
    return Vhdx(container, bat, geometry, parent)


def references(container: Image) -> list[str]:
    """The paths by which a differencing disk names its parent; none of another disk."""
    locator = _opened(container)[2].locator
    return [] if locator is None else locator.paths


def _opened(container: Image) -> tuple[Image, "Region", "Geometry"]:
    """The file with its log replayed, where its block table is, and what its metadata says."""
    if container.read(0, 8) != SIGNATURE:
        raise UnsupportedError("not a VHDX: there is no file identifier")
    header = _current_header(container)
    if any(header.log_guid):
        container = replay(container, header.log_offset, header.log_length, header.log_guid)
    regions = _regions(container)
    return container, regions[BAT_REGION], _geometry(container, regions[METADATA_REGION])


def _parent(locator: ParentLocator, siblings: Siblings) -> Image:
    file, above = siblings.file(locator.paths, "VHDX parent")
    if file.read(0, 8) != SIGNATURE:
        raise CorruptError(f"VHDX parent {locator.paths[0]!a}: expected a VHDX, got another file")
    got = _current_header(file).data_guid
    if got not in locator.linkages:
        raise CorruptError(
            f"VHDX parent {locator.paths[0]!a}: data write id: expected "
            f"{uuid.UUID(bytes_le=locator.linkages[0])}, got {uuid.UUID(bytes_le=got)}; it was "
            f"written to after the child was made"
        )
    return open_vhdx(file, above)


def _current_header(container: Image) -> Header:
    """Of the headers that are whole, the one with the higher sequence number."""
    found: list[Header] = []
    for offset in HEADER_OFFSETS:
        content = container.read(offset, HEADER_BYTES)
        if len(content) != HEADER_BYTES or content[:4] != b"head" or not checked(content):
            continue
        _, _, sequence, _, data, log, log_version, version, log_length, log_at = HEADER.unpack_from(
            content
        )
        if version != 1 or log_version:
            raise UnsupportedError(f"VHDX: expected versions 1 and 0, got {version}, {log_version}")
        found.append(Header(sequence, data, log, log_length, log_at))
    if not found:
        raise CorruptError("VHDX: both headers are damaged: wrong signature or checksum")
    return max(found)


def _regions(container: Image) -> dict[bytes, Region]:
    for offset in REGION_OFFSETS:
        content = container.read(offset, REGION_TABLE_BYTES)
        if len(content) == REGION_TABLE_BYTES and content[:4] == b"regi" and checked(content):
            return _parse_regions(content, container.size)
    raise CorruptError("VHDX: both region tables are damaged: wrong signature or checksum")


def _parse_regions(content: bytes, file_bytes: int) -> dict[bytes, Region]:
    count = int.from_bytes(content[8:12], "little")
    if count > ENTRIES_MAX:
        raise CorruptError(f"VHDX region table: expected at most {ENTRIES_MAX}, got {count}")
    regions: dict[bytes, Region] = {}
    for number in range(count):
        guid, offset, length, required = REGION.unpack_from(content, 16 + number * REGION.size)
        if guid in (BAT_REGION, METADATA_REGION):
            if offset % MIB or offset + length > file_bytes:
                raise CorruptError(
                    f"VHDX region {number}: expected it within the file's {file_bytes} bytes, "
                    f"got {offset} + {length}; the file is cut short"
                )
            regions[guid] = Region(offset, length)
        elif required & 1:
            raise UnsupportedError(f"VHDX: unknown required region {uuid.UUID(bytes_le=guid)}")
    for guid, name in ((BAT_REGION, "block table"), (METADATA_REGION, "metadata")):
        if guid not in regions:
            raise CorruptError(f"VHDX region table: there is no {name} region")
    return regions


def _geometry(container: Image, region: Region) -> Geometry:
    items = _metadata(container, region)
    for guid, name in ((FILE_PARAMETERS, "file parameters"), (DISK_SIZE, "disk size")):
        if guid not in items:
            raise CorruptError(f"VHDX metadata: there is no {name}")
    if SECTOR_SIZE not in items:
        raise CorruptError("VHDX metadata: there is no sector size")
    block_bytes, flags = struct.unpack_from("<II", items[FILE_PARAMETERS].ljust(8, b"\0"))
    size = int.from_bytes(items[DISK_SIZE][:8], "little")
    sector_bytes = int.from_bytes(items[SECTOR_SIZE][:4], "little")
    if flags & HAS_PARENT and PARENT_LOCATOR not in items:
        raise CorruptError("VHDX metadata: it is a differencing disk without a parent locator")
    if not MIB <= block_bytes <= BLOCK_BYTES_MAX or block_bytes & (block_bytes - 1):
        raise CorruptError(f"VHDX: block size: expected a power of two, got {block_bytes}")
    if sector_bytes not in (512, 4096):
        raise CorruptError(f"VHDX: sector size: expected 512 or 4096, got {sector_bytes}")
    if not 0 < size <= DISK_BYTES_MAX or size % sector_bytes:
        raise CorruptError(f"VHDX: disk size: expected whole sectors up to 64 TiB, got {size}")
    locator = parse_locator(items[PARENT_LOCATOR]) if flags & HAS_PARENT else None
    return Geometry(size, block_bytes, sector_bytes, locator)


def _metadata(container: Image, region: Region) -> dict[bytes, bytes]:
    table = read_exactly(container, region.offset, REGION_TABLE_BYTES, "VHDX metadata table")
    if table[:8] != b"metadata":
        raise CorruptError(f"VHDX metadata table: expected its signature, got {table[:8]!r}")
    count = int.from_bytes(table[10:12], "little")
    if count > ENTRIES_MAX:
        raise CorruptError(f"VHDX metadata table: expected at most {ENTRIES_MAX}, got {count}")
    items: dict[bytes, bytes] = {}
    for number in range(count):
        guid, offset, length, flags, _ = METADATA.unpack_from(table, 32 + number * METADATA.size)
        if guid not in KNOWN_ITEMS:
            if flags & REQUIRED:
                raise UnsupportedError(f"VHDX: unknown required item {uuid.UUID(bytes_le=guid)}")
            continue
        if offset + length > region.length or length > MIB or guid in items:
            raise CorruptError(
                f"VHDX metadata item {number}: expected it once, within its region's "
                f"{region.length} bytes, got {length} at {offset}"
            )
        items[guid] = read_exactly(
            container, region.offset + offset, length, f"VHDX metadata item {number}"
        )
    return items


class Vhdx(BlockImage):
    """The disk: blocks where the table says, else zeros or the parent's bytes."""

    def __init__(
        self, container: Image, bat: Region, geometry: Geometry, parent: Image | None
    ) -> None:
        super().__init__(geometry.size, geometry.block_bytes, container, parent, "VHDX block")
        self.sector_bytes: Final = geometry.sector_bytes
        """Of the logical sectors by which the guest addresses the disk."""
        self._chunk_blocks = BITMAP_SECTORS * geometry.sector_bytes // geometry.block_bytes
        blocks = -(-geometry.size // geometry.block_bytes)
        entries = blocks + (blocks - 1) // self._chunk_blocks
        if parent is not None:
            entries = -(-blocks // self._chunk_blocks) * (self._chunk_blocks + 1)
        if entries * 8 > bat.length:
            raise CorruptError(
                f"VHDX block table: expected {entries} entries, the region has {bat.length // 8}"
            )
        self._table = Table(container, bat.offset, entries, "<u8", "VHDX block table")

    def _entries(self, first: int, end: int) -> Iterator[Entries]:
        """Of blocks only: a sector bitmap's entry follows those of each chunk of blocks."""
        chunk = self._chunk_blocks
        last = end - 1
        for part in self._table.entries(first + first // chunk, last + last // chunk + 1):
            start = part.first - part.first // (chunk + 1)
            stop = part.end - part.end // (chunk + 1)
            values = part.values
            if values.size == part.end - part.first:
                values = values[np.arange(part.first, part.end) % (chunk + 1) != chunk]
            if stop > start:
                yield Entries(start, stop, values)

    def _places(self, values: Values) -> Places:
        states = values & 7
        places = (values >> 20).astype(np.int64) * MIB
        return np.where((states == FULLY_PRESENT) & (places >= MIB), places, KINDS[states])

    def _single(self, block: int, low: int, high: int) -> Iterator[Extent]:
        """A block of which some sectors are the parent's, as its chunk's bitmap says."""
        state, place = self._entry(block + block // self._chunk_blocks)
        start = block * self._block_bytes
        low, high = max(low, start), min(high, start + self._block_bytes, self.size)
        if state != PARTIALLY_PRESENT or self._parent is None:
            raise CorruptError(
                f"VHDX block {block}: a state that it cannot have, {state} at {place}"
            )
        if place < MIB or place + high - start > self._file.size:
            raise CorruptError(
                f"VHDX block {block}: expected it within the file's {self._file.size} bytes, "
                f"got {place}; the file is cut short or its table damaged"
            )
        first = (low - start) // self.sector_bytes
        count = -(-(high - start) // self.sector_bytes) - first
        for own, sector, sectors in self._sectors(block, first, count):
            inside = sector * self.sector_bytes
            length = sectors * self.sector_bytes
            if own:
                yield Extent(start + inside, length, ExtentKind.DATA, self._file, place + inside)
            else:
                yield from beneath(self._parent, start + inside, length)

    def _entry(self, index: int) -> tuple[int, int]:
        """(state, offset in the file) of an entry of the block table."""
        entry = int(self._table.entry(index))
        return entry & 7, (entry >> 20) * MIB

    def _sectors(self, block: int, first: int, count: int) -> Iterator[tuple[bool, int, int]]:
        """(own, first, count) of a block's runs of sectors, by its chunk's bitmap."""
        chunk, number = divmod(block, self._chunk_blocks)
        state, bitmap_at = self._entry(chunk * (self._chunk_blocks + 1) + self._chunk_blocks)
        what = f"VHDX sector bitmap {chunk}"
        if state != FULLY_PRESENT or bitmap_at < MIB:
            raise CorruptError(f"{what}: expected it present, got state {state} at {bitmap_at}")
        bit = number * (self._block_bytes // self.sector_bytes) + first
        content = read_exactly(self._file, bitmap_at + bit // 8, (bit % 8 + count + 7) // 8, what)
        for own, run_bit, sectors in bit_runs(content, bit % 8, count, "little"):
            yield own, first + run_bit - bit % 8, sectors
