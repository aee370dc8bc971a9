"""QCOW2: QEMU's disks as images: compressed, on backing files, with data files of their own.

Defined here and only here. Used by timefs.guest.detect. Immutable and thread-safe. Tables are read
as needed; reference counts are not looked at; what is shown is the active state, not the internal
snapshots. Encrypted disks are not supported.

Source: QEMU, docs/interop/qcow2.txt.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, Image, MappedImage, read_exactly
from timefs.guest.beneath import beneath
from timefs.guest.compressed import CompressedImage, inflate, unzstd
from timefs.guest.siblings import Siblings

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
    """Path of the backing file; empty if there is none."""
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
    return [path for path in (header.backing, header.data_file) if path]


def open_qcow2(container: Image, siblings: Siblings) -> Image:
    """The disk of a QCOW2 file.

    Raises:
        CorruptError: the file contradicts the format, or a file it stands on is missing.
        UnsupportedError: it needs a feature that is not decoded.
    """
    header = read_header(container)
    data, backing = container, None
    if header.features & EXTERNAL_DATA:
        if not header.data_file:
            raise UnsupportedError("QCOW2: its data is in a file that it does not name")
        data, _ = siblings.file((header.data_file,), "QCOW2 data file")
    if header.backing:
        what = "QCOW2 backing file"
        if header.backing.startswith("json:") or "://" in header.backing:
            raise UnsupportedError(f"{what}: expected a path, got {header.backing!a}")
        if header.backing_format == "raw":
            backing, _ = siblings.file((header.backing,), what)
        else:
            backing = siblings.disk(header.backing, what)
    return Qcow2(container, data, backing, header)


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


class Qcow2(MappedImage):
    """The disk: clusters where the tables say, else the backing disk's bytes or zeros."""

    def __init__(
        self, container: Image, data: Image, backing: Image | None, header: Header
    ) -> None:
        super().__init__(header.size)
        self._container = container
        self._data = data
        self._backing = backing
        self._header = header
        self._cluster_bytes = 1 << header.cluster_bits
        self._entry_bytes = 16 if header.features & EXTENDED_L2 else 8
        self._l2_entries = self._cluster_bytes // self._entry_bytes
        self._compressed = _Clusters(self, container, header)
        needed = -(-header.size // (self._cluster_bytes * self._l2_entries))
        if header.l1_entries < needed or header.l1_offset % self._cluster_bytes:
            raise CorruptError(
                f"QCOW2 L1 table: expected {needed} entries at a whole cluster, got "
                f"{header.l1_entries} at {header.l1_offset}"
            )
        if header.l1_offset + needed * 8 > container.size:
            raise CorruptError("QCOW2 L1 table: it ends beyond the file, which is cut short")

    def entry(self, cluster: int) -> tuple[int, int]:
        """A cluster's own entry of its L2 table, and its bitmap."""
        return next(iter(self._entries(cluster, cluster + 1)))

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        first = offset // self._cluster_bytes
        end = -(-(offset + length) // self._cluster_bytes)
        for cluster, (entry, bitmap) in enumerate(self._entries(first, end), first):
            yield from self._cluster(cluster, entry, bitmap)

    def _entries(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """(entry, bitmap) of clusters in a range, a table at a time."""
        while first < end:
            table, index = divmod(first, self._l2_entries)
            count = min(end - first, self._l2_entries - index)
            place = self._l2_place(table)
            if not place:
                yield from ((0, 0) for _ in range(count))
            else:
                content = read_exactly(
                    self._container, place + index * self._entry_bytes, count * self._entry_bytes,
                    f"QCOW2 L2 table {table}",
                )  # fmt: skip
                words = struct.unpack(f">{len(content) // 8}Q", content)
                bitmaps = words[1::2] if self._entry_bytes == 16 else (0,) * count
                yield from zip(words[:: self._entry_bytes // 8], bitmaps, strict=True)
            first += count

    def _l2_place(self, table: int) -> int:
        what = f"QCOW2 L1 entry {table}"
        content = read_exactly(self._container, self._header.l1_offset + table * 8, 8, what)
        entry = int.from_bytes(content, "big")
        place = entry & OFFSET_MASK
        if entry & ~(OFFSET_MASK | COPIED) or place % self._cluster_bytes:
            raise CorruptError(f"{what}: expected a cluster's offset, got {entry:#x}")
        return place

    def _cluster(self, cluster: int, entry: int, bitmap: int) -> Iterator[Extent]:
        start = cluster * self._cluster_bytes
        length = min(self._cluster_bytes, self._size - start)
        if entry & COMPRESSED:
            if self._data is not self._container:
                raise CorruptError(f"QCOW2 cluster {cluster}: compressed beside a data file")
            yield Extent(start, length, ExtentKind.OPAQUE, self._compressed, start)
            return
        place = entry & OFFSET_MASK
        present = bool(place) or (self._data is not self._container and bool(entry & COPIED))
        if entry & ~(OFFSET_MASK | COPIED | READS_ZERO) or place % self._cluster_bytes:
            raise CorruptError(f"QCOW2 cluster {cluster}: expected an offset, got {entry:#x}")
        if self._entry_bytes == 16:
            if entry & READS_ZERO:
                raise CorruptError(f"QCOW2 cluster {cluster}: a reserved bit is set")
            yield from self._subclusters(cluster, place if present else None, bitmap)
        elif entry & READS_ZERO:
            if self._header.version < 3:
                raise CorruptError(f"QCOW2 cluster {cluster}: a reserved bit is set")
            yield Extent(start, length, ExtentKind.ZERO, None, 0)
        elif present:
            yield self._stored(start, length, place)
        else:
            yield from beneath(self._backing, start, length)

    def _subclusters(self, cluster: int, place: int | None, bitmap: int) -> Iterator[Extent]:
        """A cluster in 32 parts, each stored, zeros or not there; like ones joined."""
        step = self._cluster_bytes // SUBCLUSTERS
        start = cluster * self._cluster_bytes
        stored, zeros = bitmap & 0xFFFFFFFF, bitmap >> 32
        if stored & zeros or (stored and place is None):
            raise CorruptError(f"QCOW2 cluster {cluster}: its subclusters contradict one another")
        states = [(stored >> part & 1, zeros >> part & 1) for part in range(SUBCLUSTERS)]
        part = 0
        while part < SUBCLUSTERS and start + part * step < self._size:
            last = part + 1
            while last < SUBCLUSTERS and states[last] == states[part]:
                last += 1
            at = start + part * step
            length = min((last - part) * step, self._size - at)
            if states[part][0]:
                assert place is not None
                yield self._stored(at, length, place + part * step)
            elif states[part][1]:
                yield Extent(at, length, ExtentKind.ZERO, None, 0)
            else:
                yield from beneath(self._backing, at, length)
            part = last

    def _stored(self, start: int, length: int, place: int) -> Extent:
        if place + length > self._data.size:
            raise CorruptError(
                f"QCOW2 bytes at {start}: expected them within the file's {self._data.size} "
                f"bytes, got {place} + {length}; the file is cut short or its table damaged"
            )
        return Extent(start, length, ExtentKind.DATA, self._data, place)
