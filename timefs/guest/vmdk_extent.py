"""The extents of VMDK disks that have grain tables: sparse, stream-optimised, seSparse.

Defined here and only here. Used by timefs.guest.vmdk. Immutable and thread-safe. Tables are read as
needed.

Source: VMware, Virtual Disk Format 5.0; seSparse as QEMU's block/vmdk.c documents it.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, Image, read_exactly
from timefs.guest.blocks import ABSENT, OPAQUE, SINGLE, ZERO, BlockImage
from timefs.guest.compressed import CompressedImage, inflate
from timefs.guest.tables import NOWHERE, WRONG, Directory, Entries, Places, Table, Values

SECTOR_BYTES: Final = 512
MAGIC: Final = b"KDMV"
HEADER: Final = struct.Struct("<4sIIQQQQIQQQBccccH")
LINE_ENDS: Final = (b"\n", b" ", b"\r", b"\n")
HAS_LINE_ENDS: Final = 1
HAS_ZERO_GRAINS: Final = 4
COMPRESSED: Final = 1 << 16
MARKERS: Final = 1 << 17
AT_END: Final = (1 << 64) - 1
FOOTER_FROM_END: Final = 1024
GRAIN: Final = struct.Struct("<QI")
GRAIN_SECTORS_MAX: Final = 128 << 10
TABLE_ENTRIES_MAX: Final = 1 << 16
EXTENT_BYTES_MAX: Final = 1 << 60
ZERO_GRAIN: Final = 1

SESPARSE_MAGIC: Final = (0xCAFEBABE).to_bytes(8, "little")
SESPARSE_VOLATILE_MAGIC: Final = 0xCAFECAFE
SESPARSE: Final = struct.Struct("<QQQQQQ32x16Q")
SESPARSE_VOLATILE: Final = struct.Struct("<QQQB")
SESPARSE_VERSION: Final = 0x0000000200000001
SESPARSE_TABLE: Final = 0x10000000
"""The upper half of an entry that leads to a table, whose number is the lower."""

LOW_HALF: Final = 0xFFFFFFFF
SESPARSE_HIGH: Final = 0x0FFFFFFFFFFFF000
SESPARSE_LOW: Final = 0xFFF
"""A grain's number has its low 12 bits above the others."""

GRAINS_MAX: Final = 1 << 48
"""Beyond, no grain's place is a number of 63 bits."""


class SparseHeader(NamedTuple):
    """The fields of a sparse extent's header that matter here; offsets and lengths in bytes."""

    flags: int
    size: int
    grain_bytes: int
    descriptor_offset: int
    descriptor_bytes: int
    table_entries: int
    directory_at: int
    compressed: bool


def sparse_header(file: Image) -> SparseHeader:
    """The header of a sparse extent, or the footer that stream-optimised ones end with.

    Raises:
        CorruptError: it contradicts the format.
        UnsupportedError: it is of an unknown version or compression.
    """
    header = _header(file, 0)
    if header.directory_at != AT_END * SECTOR_BYTES:
        return header
    footer = _header(file, file.size - FOOTER_FROM_END)
    if footer.directory_at == AT_END * SECTOR_BYTES:
        raise CorruptError("VMDK footer: it does not say where the grain directory is")
    return footer._replace(
        descriptor_offset=header.descriptor_offset, descriptor_bytes=header.descriptor_bytes
    )


def _header(file: Image, offset: int) -> SparseHeader:
    what = f"VMDK header at {offset}"
    fields = HEADER.unpack(read_exactly(file, offset, HEADER.size, what))
    magic, version, flags, capacity, grain, text_at, text_sectors, entries, _, directory = fields[
        :10
    ]
    if magic != MAGIC:
        raise CorruptError(f"{what}: expected KDMV, got {magic!r}")
    if version not in (1, 2, 3):
        raise UnsupportedError(f"{what}: expected version 1 to 3, got {version}")
    if flags & HAS_LINE_ENDS and fields[12:16] != LINE_ENDS:
        raise CorruptError(f"{what}: it was transferred as text, which damaged it")
    if not 0 < grain <= GRAIN_SECTORS_MAX or grain & (grain - 1):
        raise CorruptError(f"{what}: grain: expected a power of two, got {grain} sectors")
    if not 0 < entries <= TABLE_ENTRIES_MAX or capacity * SECTOR_BYTES > EXTENT_BYTES_MAX:
        raise CorruptError(f"{what}: expected sizes within the format's limits, got more")
    if flags & COMPRESSED and fields[16] != 1:
        raise UnsupportedError(f"{what}: unknown compression {fields[16]}")
    return SparseHeader(
        flags, capacity * SECTOR_BYTES, grain * SECTOR_BYTES, text_at * SECTOR_BYTES,
        text_sectors * SECTOR_BYTES, entries, directory * SECTOR_BYTES, bool(flags & COMPRESSED),
    )  # fmt: skip


class Grains(BlockImage):
    """An extent: grains where the tables say, else what is beneath."""

    _tables: Directory

    def _entries(self, first: int, end: int) -> Iterator[Entries]:
        return self._tables.entries(first, end)

    def _single(self, block: int, low: int, high: int) -> Iterator[Extent]:
        del low, high
        raise CorruptError(
            f"VMDK grain {block}: expected a place or a known state, got "
            f"{self._tables.entry(block):#x}"
        )


class Sparse(Grains):
    """A hosted sparse extent: 32-bit sectors in two levels of tables."""

    def __init__(self, file: Image, size: int, parent: Image | None) -> None:
        header = sparse_header(file)
        if header.size < size:
            raise CorruptError(f"VMDK extent: expected {size} bytes, its header has {header.size}")
        super().__init__(size, header.grain_bytes, file, parent, "VMDK grain")
        self._header = header
        self._compressed = _CompressedGrains(self, file, header)
        tables = -(-size // (header.grain_bytes * header.table_entries))
        what = "VMDK grain directory"
        if not header.directory_at:
            raise CorruptError(f"{what}: expected its place, got none")
        directory = Table(file, header.directory_at, tables, "<u4", what)
        self._tables = Directory(directory, header.table_entries, "<u4", _table_places)

    def place(self, grain: int) -> int:
        """Where a grain that is there begins in the file, in bytes."""
        return int(self._tables.entry(grain)) * SECTOR_BYTES

    def _places(self, values: Values) -> Places:
        places = values.astype(np.int64) * SECTOR_BYTES
        if self._header.compressed:
            places[:] = OPAQUE
        if self._header.flags & HAS_ZERO_GRAINS:
            places[values == ZERO_GRAIN] = ZERO
        places[values == 0] = ABSENT
        return places

    def _decoder(self) -> Image:
        return self._compressed


def _table_places(values: Values) -> Places:
    """Where the grain tables are that entries of a grain directory lead to."""
    return np.where(values == 0, NOWHERE, values.astype(np.int64) * SECTOR_BYTES)


class _CompressedGrains(CompressedImage):
    """The grains of a compressed extent, by number."""

    def __init__(self, extent: Sparse, file: Image, header: SparseHeader) -> None:
        super().__init__(-(-extent.size // header.grain_bytes) * header.grain_bytes,
                         header.grain_bytes)  # fmt: skip
        self._extent = extent
        self._file = file
        self._header = header

    def piece(self, number: int) -> bytes:
        what = f"VMDK grain {number}"
        place = self._extent.place(number)
        if self._header.flags & MARKERS:
            lba, length = GRAIN.unpack(read_exactly(self._file, place, GRAIN.size, what))
            place += GRAIN.size
            if lba * SECTOR_BYTES != number * self._piece_bytes:
                raise CorruptError(f"{what}: expected its marker, got that of sector {lba}")
        else:  # nothing says where its stream ends but the stream
            length = min(2 * self._piece_bytes, max(self._file.size - place, 0))
        if length > 2 * self._piece_bytes + SECTOR_BYTES:
            raise CorruptError(f"{what}: expected at most twice a grain, got {length} bytes")
        content = read_exactly(self._file, place, length, what)
        start = number * self._piece_bytes
        whole = min(self._piece_bytes, self._header.size - start)
        made = inflate(content, self._piece_bytes, what, raw=False)
        if len(made) not in (whole, self._piece_bytes):
            raise CorruptError(f"{what}: expected {whole} decoded bytes, got {len(made)}")
        return made


class SeSparse(Grains):
    """A space-efficient sparse extent: 64-bit entries whose top bits are states."""

    def __init__(self, file: Image, size: int, parent: Image | None) -> None:
        fields = SESPARSE.unpack(read_exactly(file, 0, SESPARSE.size, "seSparse header"))
        _, version, capacity, grain, table_sectors, flags = fields[:6]
        if version != SESPARSE_VERSION or flags:
            raise UnsupportedError(f"seSparse: expected version 2.1, got {version:#x}, {flags:#x}")
        if capacity * SECTOR_BYTES < size or capacity > EXTENT_BYTES_MAX // SECTOR_BYTES:
            raise CorruptError(f"seSparse header: capacity: got {capacity} sectors")
        if max(fields[6], fields[12], fields[14], fields[20]) * SECTOR_BYTES > file.size:
            raise CorruptError("seSparse header: expected its parts within the file, got beyond")
        if grain != 8 or table_sectors != 64:
            raise UnsupportedError(f"seSparse: grains of {grain}, tables of {table_sectors}")
        super().__init__(size, grain * SECTOR_BYTES, file, parent, "VMDK grain")
        _expect_clean(file, fields[6] * SECTOR_BYTES)
        self._tables_at = fields[14] * SECTOR_BYTES
        self._table_count = fields[15] // table_sectors
        self._grains_at = fields[20] * SECTOR_BYTES
        self._table_bytes = table_sectors * SECTOR_BYTES
        tables = -(-size * 8 // (self._block_bytes * self._table_bytes))
        what = "seSparse grain directory"
        if tables * 8 > fields[13] * SECTOR_BYTES:
            raise CorruptError(f"{what}: expected {tables} entries, got {fields[13]} sectors")
        directory = Table(file, fields[12] * SECTOR_BYTES, tables, "<u8", what)
        self._tables = Directory(directory, self._table_bytes // 8, "<u8", self._table_places)

    def _table_places(self, values: Values) -> Places:
        numbers = (values & LOW_HALF).astype(np.int64)
        right = (values >> 32 == SESPARSE_TABLE) & (numbers < self._table_count)
        places = numbers * self._table_bytes + self._tables_at
        return np.select([values == 0, right], [NOWHERE, places], WRONG)

    def _places(self, values: Values) -> Places:
        states = values >> 60
        numbers = values << 12 & SESPARSE_HIGH | values >> 48 & SESPARSE_LOW
        places = np.minimum(numbers, GRAINS_MAX).astype(np.int64) * self._block_bytes
        return np.select(
            [values == 0, (states == 1) | (states == 2), states == 3],
            [ABSENT, ZERO, places + self._grains_at],
            SINGLE,
        )


def _expect_clean(file: Image, at: int) -> None:
    """Whether all is in its place, and nothing in the journal of an seSparse extent."""
    what = "seSparse volatile header"
    content = read_exactly(file, at, SESPARSE_VOLATILE.size, what)
    magic, _, _, replay = SESPARSE_VOLATILE.unpack(content)
    if magic != SESPARSE_VOLATILE_MAGIC:
        raise CorruptError(f"{what}: expected its magic, got {magic:#x}")
    if replay:
        raise UnsupportedError("seSparse: its journal must be replayed, which is not done")


def open_grains(file: Image, size: int, parent: Image | None) -> Image:
    """The bytes of an extent with grain tables, upon what is beneath it.

    Raises:
        CorruptError: it contradicts the format.
        UnsupportedError: it needs a feature that is not decoded.
    """
    if file.read(0, len(SESPARSE_MAGIC)) == SESPARSE_MAGIC:
        return SeSparse(file, size, parent)
    return Sparse(file, size, parent)
