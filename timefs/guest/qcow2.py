"""QCOW2: QEMU's disks as images: compressed, on backing files, with data files of their own.

Defined here and only here. Used by timefs.guest.detect. Immutable and thread-safe. Tables are read
as needed; reference counts are not looked at; what is shown is the active state, not the internal
snapshots. Encrypted disks are not supported.

Source: QEMU, docs/interop/qcow2.txt.
"""

import struct
from collections.abc import Iterator
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, Image, read_exactly
from timefs.guest.beneath import beneath
from timefs.guest.blocks import ABSENT, OPAQUE, SINGLE, ZERO, BlockImage
from timefs.guest.compressed import CompressedImage, inflate, unzstd
from timefs.guest.qcow2_backing import Backing, parse_backing
from timefs.guest.siblings import Siblings
from timefs.guest.tables import NOWHERE, WRONG, Directory, Entries, Places, Table, Values

MAGIC: Final = b"QFI\xfb"
HEADER: Final = struct.Struct(">4sIQIIQIIQQIIQ")
HEADER_3: Final = struct.Struct(">QQQII")
HEADER_3_OFFSET: Final = 72
COMPRESSION_OFFSET: Final = 104
EXTENSION: Final = struct.Struct(">II")
BACKING_FORMAT: Final = 0xE2792ACA
DATA_FILE_NAME: Final = 0x44415441

EXTERNAL_DATA: Final = 4
COMPRESSION_TYPE: Final = 8
EXTENDED_L2: Final = 16
KNOWN_FEATURES: Final = 1 | 2 | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2
"""The first two say that reference counts are stale, or that something was once found wrong."""

ZLIB: Final = 0
ZSTD: Final = 1
EXTENSIONS_MAX: Final = 64
NAME_BYTES_MAX: Final = 1023
CLUSTER_BITS: Final = range(9, 22)
DISK_BYTES_MAX: Final = 1 << 60
L1_ENTRIES_MAX: Final = (32 << 20) // 8
SECTOR_BYTES: Final = 512
SUBCLUSTERS: Final = 32

OFFSET_MASK: Final = 0x00FFFFFFFFFFFE00
COMPRESSED: Final = 1 << 62
COPIED: Final = 1 << 63
READS_ZERO: Final = 1
ALL_BITS: Final = (1 << 64) - 1
L1_RESERVED: Final = ALL_BITS ^ OFFSET_MASK ^ COPIED
RESERVED: Final = L1_RESERVED ^ COMPRESSED ^ READS_ZERO
ALL_STORED: Final = (1 << SUBCLUSTERS) - 1
ALL_ZERO: Final = ALL_STORED << SUBCLUSTERS
FIRST_WITH_ZEROS: Final = 3
"""The version from which on an entry may say zeros."""

ENTRY: Final = np.dtype([("place", ">u8")])
EXTENDED_ENTRY: Final = np.dtype([("place", ">u8"), ("parts", ">u8")])


class Header(NamedTuple):
    """What a header says, its extensions included."""

    version: int
    size: int
    cluster_bits: int
    l1_offset: int
    l1_entries: int
    features: int
    compression: int
    backing: str
    """As the file has it; empty if there is none."""
    backing_format: str
    data_file: str


def read_header(container: Image) -> Header:
    """The header of a QCOW2 file.

    Raises:
        CorruptError: it contradicts the format.
        UnsupportedError: it needs what is not decoded.
    """
    content = read_exactly(container, 0, HEADER.size, "QCOW2 header")
    fields = HEADER.unpack(content)
    _, version, name_at, name_bytes, cluster_bits, size, encrypted, entries, l1_offset, *_ = fields
    if version not in (2, 3):
        raise UnsupportedError(f"QCOW2: expected version 2 or 3, got {version}")
    if encrypted:
        raise UnsupportedError("QCOW2: it is encrypted; this version does not decrypt")
    if cluster_bits not in CLUSTER_BITS:
        raise CorruptError(f"QCOW2 header: cluster bits: expected 9 to 21, got {cluster_bits}")
    if size > DISK_BYTES_MAX or entries > L1_ENTRIES_MAX or name_bytes > NAME_BYTES_MAX:
        raise CorruptError("QCOW2 header: expected sizes within the format's limits, got more")
    features, header_bytes, compression = 0, HEADER_3_OFFSET, ZLIB
    if version > 2:
        content = read_exactly(container, HEADER_3_OFFSET, HEADER_3.size, "QCOW2 header")
        features, _, _, _, header_bytes = HEADER_3.unpack(content)
    if features & ~KNOWN_FEATURES:
        raise UnsupportedError(f"QCOW2: unknown features {features & ~KNOWN_FEATURES:#x}")
    if features & COMPRESSION_TYPE:
        compression = read_exactly(container, COMPRESSION_OFFSET, 1, "QCOW2 header")[0]
    if compression not in (ZLIB, ZSTD):
        raise UnsupportedError(f"QCOW2: unknown compression {compression}")
    if features & EXTENDED_L2 and cluster_bits < 14:
        raise CorruptError(f"QCOW2 header: subclusters: expected 14 bits, got {cluster_bits}")
    limit = name_at or 1 << cluster_bits
    extensions = _extensions(container, header_bytes, min(limit, 1 << cluster_bits))
    backing = read_exactly(container, name_at, name_bytes, "QCOW2 backing file") if name_at else b""
    return Header(
        version, size, cluster_bits, l1_offset, entries, features, compression, _text(backing),
        _text(extensions.get(BACKING_FORMAT, b"")), _text(extensions.get(DATA_FILE_NAME, b"")),
    )  # fmt: skip


def _text(content: bytes) -> str:
    return content.rstrip(b"\0").decode(errors="surrogateescape")


def _extensions(container: Image, at: int, limit: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for _ in range(EXTENSIONS_MAX):
        if at + EXTENSION.size > limit:
            break
        content = read_exactly(container, at, EXTENSION.size, "QCOW2 header extension")
        kind, length = EXTENSION.unpack(content)
        if not kind:
            break
        at += EXTENSION.size
        if at + length > limit:
            raise CorruptError(f"QCOW2 header extension {kind:#x}: it ends beyond the header")
        if kind in (BACKING_FORMAT, DATA_FILE_NAME):
            found[kind] = read_exactly(container, at, length, "QCOW2 header extension")
        at += -(-length // 8) * 8
    return found


def references(container: Image) -> list[str]:
    """The paths of the files that the disk's content depends on."""
    header = read_header(container)
    paths = [_data_path(header)] if header.features & EXTERNAL_DATA else []
    return paths + ([_backing(header).path] if header.backing else [])


def open_qcow2(container: Image, siblings: Siblings) -> Image:
    """The disk of a QCOW2 file.

    Raises:
        CorruptError: the file contradicts the format, or a file it stands on is missing.
        UnsupportedError: it needs a feature that is not decoded.
    """
    header = read_header(container)
    data, backing = container, None
    if header.features & EXTERNAL_DATA:
        data, _ = siblings.file((_data_path(header),), "QCOW2 data file")
    if header.backing:
        backing = _open_backing(_backing(header), siblings)
    return Qcow2(container, data, backing, header)


def _data_path(header: Header) -> str:
    if not header.data_file:
        raise UnsupportedError("QCOW2: its data is in a file that it does not name")
    return parse_backing(header.data_file, "raw", "QCOW2 data file").path


def _backing(header: Header) -> Backing:
    return parse_backing(header.backing, header.backing_format, "QCOW2 backing file")


def _open_backing(backing: Backing, siblings: Siblings) -> Image:
    what = "QCOW2 backing file"
    file, above = siblings.file((backing.path,), what)
    if backing.raw:
        return file
    disk = above.decode(file)
    if disk is file and backing.format:
        raise CorruptError(f"{what} {backing.path!a}: expected {backing.format!a}, got a raw file")
    return disk


class _Clusters(CompressedImage):
    """The compressed clusters, by number."""

    def __init__(self, disk: "Qcow2", container: Image, header: Header) -> None:
        super().__init__(-(-header.size >> header.cluster_bits) << header.cluster_bits,
                         1 << header.cluster_bits)  # fmt: skip
        self._disk = disk
        self._container = container
        self._offset_bits = 62 - (header.cluster_bits - 8)
        self._zstd = header.compression == ZSTD

    def piece(self, number: int) -> bytes:
        entry, _ = self._disk.entry(number)
        what = f"QCOW2 cluster {number}"
        offset = entry & ((1 << self._offset_bits) - 1)
        sectors = ((entry & (COMPRESSED - 1)) >> self._offset_bits) + 1
        length = sectors * SECTOR_BYTES - offset % SECTOR_BYTES
        if offset >= self._container.size:
            raise CorruptError(f"{what}: expected it within the file, got {offset}")
        content = self._container.read(offset, length)  # the file may end within its last sector
        if self._zstd:
            return unzstd(content, self._piece_bytes, what)
        made = inflate(content, self._piece_bytes, what, raw=True)
        if len(made) != self._piece_bytes:
            raise CorruptError(f"{what}: expected {self._piece_bytes} bytes, got {len(made)}")
        return made


class Qcow2(BlockImage):
    """The disk: clusters where the tables say, else the backing disk's bytes or zeros."""

    def __init__(
        self, container: Image, data: Image, backing: Image | None, header: Header
    ) -> None:
        super().__init__(header.size, 1 << header.cluster_bits, data, backing, "QCOW2 cluster")
        self._version = header.version
        self._extended = bool(header.features & EXTENDED_L2)
        self._external = data is not container
        kind = EXTENDED_ENTRY if self._extended else ENTRY
        entries = self._block_bytes // kind.itemsize
        needed = -(-header.size // (self._block_bytes * entries))
        if header.l1_entries < needed or header.l1_offset % self._block_bytes:
            raise CorruptError(
                f"QCOW2 L1 table: expected {needed} entries at a whole cluster, got "
                f"{header.l1_entries} at {header.l1_offset}"
            )
        l1 = Table(container, header.l1_offset, needed, ">u8", "QCOW2 L1 table")
        self._tables = Directory(l1, entries, kind, self._table_places)
        self._compressed = _Clusters(self, container, header)

    def entry(self, cluster: int) -> tuple[int, int]:
        """A cluster's own entry of its L2 table, and its bitmap."""
        entry = self._tables.entry(cluster)
        return int(entry["place"]), int(entry["parts"]) if self._extended else 0

    def _table_places(self, values: Values) -> Places:
        """Where the L2 tables are that entries of the L1 table lead to."""
        places = (values & OFFSET_MASK).astype(np.int64)
        wrong = ((values & L1_RESERVED) != 0) | (places % self._block_bytes != 0)
        return np.select([wrong, places == 0], [WRONG, NOWHERE], places)

    def _entries(self, first: int, end: int) -> Iterator[Entries]:
        return self._tables.entries(first, end)

    def _places(self, values: Values) -> Places:
        words = values["place"].astype(np.uint64)
        places = (words & OFFSET_MASK).astype(np.int64)
        zero, stored = (words & READS_ZERO) != 0, places != 0
        if self._external:  # whose first cluster may be at 0
            stored |= (words & COPIED) != 0
        wrong = ((words & RESERVED) != 0) | (places % self._block_bytes != 0)
        absent = ~stored
        if self._extended:
            parts = values["parts"].astype(np.uint64)
            wrong |= zero
            zero, absent, stored = parts == ALL_ZERO, parts == 0, stored & (parts == ALL_STORED)
        elif self._version < FIRST_WITH_ZEROS:
            wrong |= zero
        return np.select(
            [(words & COMPRESSED) != 0, wrong, zero, absent, stored],
            [SINGLE if self._external else OPAQUE, SINGLE, ZERO, ABSENT, places],
            SINGLE,
        )

    def _decoder(self) -> Image:
        return self._compressed

    def _single(self, block: int, low: int, high: int) -> Iterator[Extent]:
        """A cluster in 32 parts, each stored, zeros or not there; like ones joined."""
        del low, high
        entry, bitmap = self.entry(block)
        if entry & COMPRESSED:
            raise CorruptError(f"QCOW2 cluster {block}: compressed beside a data file")
        place = entry & OFFSET_MASK
        if not self._extended or entry & (RESERVED | READS_ZERO) or place % self._block_bytes:
            raise CorruptError(f"QCOW2 cluster {block}: expected an offset, got {entry:#x}")
        present = place or (self._external and entry & COPIED)
        stored, zeros = bitmap & ALL_STORED, bitmap >> SUBCLUSTERS
        if stored & zeros or (stored and not present):
            raise CorruptError(f"QCOW2 cluster {block}: its subclusters contradict one another")
        step, start = self._block_bytes // SUBCLUSTERS, block * self._block_bytes
        states = [(stored >> part & 1, zeros >> part & 1) for part in range(SUBCLUSTERS)]
        for (own, zero), parts in groupby(range(SUBCLUSTERS), lambda part: states[part]):
            run = list(parts)
            at = start + run[0] * step
            length = min(len(run) * step, self.size - at)
            if length <= 0:
                return
            if own:
                yield from self._stored(at, length, place + run[0] * step)
            elif zero:
                yield Extent(at, length, ExtentKind.ZERO, None, 0)
            else:
                yield from beneath(self._parent, at, length)
