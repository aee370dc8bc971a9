"""The extents of VMDK disks that have grain tables: sparse, stream-optimised, seSparse.

Defined here and only here. Used by timefs.guest.vmdk. Immutable and thread-safe. Tables are read as
needed.

Source: VMware, Virtual Disk Format 5.0; seSparse as QEMU's block/vmdk.c documents it.
"""

import struct
from abc import abstractmethod
from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, Image, MappedImage, read_exactly
from timefs.guest.compressed import CompressedImage, inflate

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


class _State(Enum):
    ABSENT = 0
    """Not written here: the parent's, or zeros."""
    ZERO = 1


class Grains(MappedImage):
    """An extent: grains where the tables say, else what is beneath."""

    def __init__(self, file: Image, size: int, grain_bytes: int, beneath: Image | None) -> None:
        super().__init__(size)
        self._file = file
        self._grain_bytes = grain_bytes
        self._beneath = beneath

    @abstractmethod
    def grains(self, first: int, count: int) -> Iterator["int | _State"]:
        """Where grains are in the file, in bytes."""

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        first = offset // self._grain_bytes
        count = -(-(offset + length) // self._grain_bytes) - first
        for grain, place in enumerate(self.grains(first, count), first):
            start = grain * self._grain_bytes
            size = min(self._grain_bytes, self.size - start)
            if isinstance(place, int):
                yield self._stored(start, size, place)
            elif place is _State.ZERO or self._beneath is None:
                yield Extent(start, size, ExtentKind.ZERO, None, 0)
            else:
                yield Extent(start, size, ExtentKind.DATA, self._beneath, start)

    def _stored(self, start: int, length: int, place: int) -> Extent:
        if place + length > self._file.size:
            raise CorruptError(
                f"VMDK grain of bytes at {start}: expected it within the file's {self._file.size} "
                f"bytes, got {place}; the file is cut short or its table damaged"
            )
        return Extent(start, length, ExtentKind.DATA, self._file, place)


class Sparse(Grains):
    """A hosted sparse extent: 32-bit sectors in two levels of tables."""

    def __init__(self, file: Image, size: int, beneath: Image | None) -> None:
        header = sparse_header(file)
        if header.size < size:
            raise CorruptError(f"VMDK extent: expected {size} bytes, its header has {header.size}")
        super().__init__(file, size, header.grain_bytes, beneath)
        self._header = header
        self._compressed = _CompressedGrains(self, file, header)
        tables = -(-size // (header.grain_bytes * header.table_entries))
        if not header.directory_at or header.directory_at + tables * 4 > file.size:
            raise CorruptError("VMDK grain directory: expected it within the file, got beyond")

    def grains(self, first: int, count: int) -> Iterator["int | _State"]:
        entries = self._header.table_entries
        while count > 0:
            number, index = divmod(first, entries)
            part = min(count, entries - index)
            at = self._header.directory_at + number * 4
            where = f"VMDK grain directory entry {number}"
            sector = int.from_bytes(read_exactly(self._file, at, 4, where), "little")
            if not sector:
                yield from (_State.ABSENT for _ in range(part))
            else:
                at = sector * SECTOR_BYTES + index * 4
                table = read_exactly(self._file, at, part * 4, f"VMDK grain table {number}")
                for (entry,) in struct.iter_unpack("<I", table):
                    yield self._place(entry)
            first += part
            count -= part

    def _place(self, entry: int) -> "int | _State":
        if not entry:
            return _State.ABSENT
        if entry == ZERO_GRAIN and self._header.flags & HAS_ZERO_GRAINS:
            return _State.ZERO
        return entry * SECTOR_BYTES

    def _stored(self, start: int, length: int, place: int) -> Extent:
        if self._header.compressed:
            return Extent(start, length, ExtentKind.OPAQUE, self._compressed, start)
        return super()._stored(start, length, place)


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
        place = next(self._extent.grains(number, 1))
        assert isinstance(place, int)
        if self._header.flags & MARKERS:
            lba, length = GRAIN.unpack(read_exactly(self._file, place, GRAIN.size, what))
            place += GRAIN.size
            if lba * SECTOR_BYTES != number * self._piece_bytes:
                raise CorruptError(f"{what}: expected its marker, got that of sector {lba}")
        else:
            length = int.from_bytes(read_exactly(self._file, place, 4, what), "little")
            place += 4
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

    def __init__(self, file: Image, size: int, beneath: Image | None) -> None:
        fields = SESPARSE.unpack(read_exactly(file, 0, SESPARSE.size, "seSparse header"))
        _, version, capacity, grain, table_sectors, _ = fields[:6]
        volatile_at, directory_at, tables_at, grains_at = (
            fields[6],
            fields[12],
            fields[14],
            fields[20],
        )
        if version != SESPARSE_VERSION:
            raise UnsupportedError(f"seSparse: expected version 2.1, got {version:#x}")
        if capacity * SECTOR_BYTES < size or capacity > EXTENT_BYTES_MAX // SECTOR_BYTES:
            raise CorruptError(f"seSparse header: capacity: got {capacity} sectors")
        if grain != 8 or table_sectors != 64:
            raise UnsupportedError(f"seSparse: grains of {grain}, tables of {table_sectors}")
        super().__init__(file, size, grain * SECTOR_BYTES, beneath)
        what = "seSparse volatile header"
        content = read_exactly(file, volatile_at * SECTOR_BYTES, SESPARSE_VOLATILE.size, what)
        magic, _, _, replay = SESPARSE_VOLATILE.unpack(content)
        if magic != SESPARSE_VOLATILE_MAGIC:
            raise CorruptError(f"{what}: expected its magic, got {magic:#x}")
        if replay:
            raise UnsupportedError("seSparse: its journal must be replayed, which is not done")
        self._directory_at = directory_at * SECTOR_BYTES
        self._directory_bytes = fields[13] * SECTOR_BYTES
        self._tables_at = tables_at * SECTOR_BYTES
        self._tables = fields[15] // table_sectors
        self._grains_at = grains_at * SECTOR_BYTES
        self._table_bytes = table_sectors * SECTOR_BYTES

    def grains(self, first: int, count: int) -> Iterator["int | _State"]:
        entries = self._table_bytes // 8
        while count > 0:
            number, index = divmod(first, entries)
            part = min(count, entries - index)
            table_at = self._table(number)
            if table_at is None:
                yield from (_State.ABSENT for _ in range(part))
            else:
                at = table_at + index * 8
                table = read_exactly(self._file, at, part * 8, f"seSparse table {number}")
                for (entry,) in struct.iter_unpack("<Q", table):
                    yield self._place(entry)
            first += part
            count -= part

    def _table(self, number: int) -> int | None:
        what = f"seSparse directory entry {number}"
        if (number + 1) * 8 > self._directory_bytes:
            raise CorruptError(f"{what}: expected it within the directory, got beyond")
        content = read_exactly(self._file, self._directory_at + number * 8, 8, what)
        entry = int.from_bytes(content, "little")
        if not entry:
            return None
        if entry >> 32 != 0x10000000 or (entry & 0xFFFFFFFF) >= self._tables:
            raise CorruptError(f"{what}: expected a table's number, got {entry:#x}")
        return self._tables_at + (entry & 0xFFFFFFFF) * self._table_bytes

    def _place(self, entry: int) -> "int | _State":
        state = entry >> 60
        if state == 3:
            number = (entry & 0x0FFF000000000000) >> 48 | (entry & 0x0000FFFFFFFFFFFF) << 12
            return self._grains_at + number * self._grain_bytes
        if state in (1, 2):
            return _State.ZERO
        if entry:
            raise CorruptError(f"seSparse table: expected a grain's entry, got {entry:#x}")
        return _State.ABSENT


def open_grains(file: Image, size: int, beneath: Image | None) -> Image:
    """The bytes of an extent with grain tables, upon what is beneath it.

    Raises:
        CorruptError: it contradicts the format.
        UnsupportedError: it needs a feature that is not decoded.
    """
    if file.read(0, len(SESPARSE_MAGIC)) == SESPARSE_MAGIC:
        return SeSparse(file, size, beneath)
    return Sparse(file, size, beneath)
