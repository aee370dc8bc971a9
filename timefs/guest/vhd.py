"""VHD: fixed, dynamic and differencing virtual hard disks as images.

Defined here and only here. Used by timefs.guest.detect. Immutable and thread-safe. The table
is looked through when the disk is opened; it and the bitmaps are read as needed.

Source: Virtual Hard Disk Image Format Specification 1.0 (Microsoft, 2006); what guests see of disks
by some creators as QEMU's block/vpc.c documents it.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, Image, MappedImage, read_exactly
from timefs.guest.beneath import beneath
from timefs.guest.bitmap import bit_runs
from timefs.guest.blocks import ABSENT, SINGLE, BlockImage
from timefs.guest.siblings import Siblings
from timefs.guest.tables import Entries, Places, Table, Values, shared

COOKIE: Final = b"conectix"
FOOTER_BYTES: Final = 512
FOOTER: Final = struct.Struct(">8sIIQI4sI4sQQIII16sB")
HEADER: Final = struct.Struct(">8sQQIIII16sI4x512s")
LOCATORS_OFFSET: Final = 576
LOCATOR: Final = struct.Struct(">4sIIIQ")
LOCATORS: Final = 8
LOCATOR_BYTES_MAX: Final = 4096
RELATIVE: Final = b"W2ru"
ABSOLUTE: Final = b"W2ku"
HEADER_BYTES: Final = 1024
HEADER_COOKIE: Final = b"cxsparse"
SECTOR_BYTES: Final = 512
UNUSED: Final = 0xFFFFFFFF
DISK_BYTES_MAX: Final = 64 << 40
BLOCK_BYTES_MAX: Final = 1 << 30

CREATORS_OF_EXACT_SIZES: Final = (
    b"win ",  # Hyper-V
    b"d2v ",  # Disk2vhd
    b"tap\0",  # XenServer
    b"CTXS",  # XenConvert
    b"qem2",  # QEMU, asked for it
    b"wa\0\0",  # Azure
    b"vbox",  # VirtualBox reads its own by their size; QEMU by their geometry
)
NUMBERED_MAX: Final = 65535 * 16 * 255
"""Sectors by the largest geometry, which stands for any size beyond."""

FIXED: Final = 2
DYNAMIC: Final = 3
DIFFERENCING: Final = 4

_FOOTER_CHECKSUM: Final = 64
_HEADER_CHECKSUM: Final = 36


class Footer(NamedTuple):
    """The footer's fields that matter here."""

    data_offset: int
    size: int
    """Bytes that the file has room for."""
    disk_bytes: int
    """Of these what the guest sees."""
    type: int
    unique_id: bytes


class Header(NamedTuple):
    """The dynamic header's fields that matter here."""

    table_offset: int
    block_bytes: int
    parent_id: bytes
    parent_name: str


def find_footer(container: Image) -> Footer | None:
    """The footer: the last 512 bytes (511 by old tools), or the copy that dynamic disks begin with.

    Raises:
        CorruptError: there are footers, and none is whole.
    """
    damaged: list[CorruptError] = []
    for offset in (container.size - FOOTER_BYTES, container.size - FOOTER_BYTES + 1, 0):
        if offset < 0:
            continue
        content = container.read(offset, FOOTER_BYTES)
        if content[:8] != COOKIE:
            continue
        try:
            return _footer(content, offset)
        except CorruptError as error:
            damaged.append(error)
    if damaged:
        raise damaged[0]
    return None


def _footer(content: bytes, offset: int) -> Footer:
    _check_sum(content.ljust(FOOTER_BYTES, b"\0"), _FOOTER_CHECKSUM, f"VHD footer at {offset}")
    _, _, _, data_offset, _, creator, _, _, _, size, shape, kind, _, unique_id, _ = (
        FOOTER.unpack_from(content.ljust(FOOTER_BYTES, b"\0"))
    )
    if not SECTOR_BYTES <= size <= DISK_BYTES_MAX:
        raise CorruptError(f"VHD footer at {offset}: size: expected sectors, got {size} bytes")
    return Footer(data_offset, size, _disk_bytes(size, creator, shape), kind, unique_id)


def _disk_bytes(size: int, creator: bytes, shape: int) -> int:
    """What the guest sees of a disk of that size.

    Whole sectors; by Virtual PC, and programs that take after it, only those that its cylinders,
    heads and sectors a track number.
    """
    size = size // SECTOR_BYTES * SECTOR_BYTES
    numbered = (shape >> 16) * (shape >> 8 & 0xFF) * (shape & 0xFF)
    if creator in CREATORS_OF_EXACT_SIZES or numbered in (0, NUMBERED_MAX):
        return size
    return min(size, numbered * SECTOR_BYTES)


def _check_sum(content: bytes, at: int, what: str) -> None:
    """The ones' complement of the sum of all bytes but the checksum's own."""
    expected = int.from_bytes(content[at : at + 4], "big")
    got = ~(sum(content) - sum(content[at : at + 4])) & 0xFFFFFFFF
    if got != expected:
        raise CorruptError(f"{what}: checksum: expected {expected:08x}, got {got:08x}")


def is_vhd(container: Image) -> bool:
    """Whether a file is a VHD.

    A footer that ends a file shorter than its own fixed disk is left over from another file: a VHD
    that was cut short would have lost the footer first.

    Raises:
        CorruptError: it is one by its footers, and none is whole.
    """
    footer = find_footer(container)
    return footer is not None and (footer.type != FIXED or footer.size < container.size)


def references(container: Image) -> list[str]:
    """The paths by which a differencing disk names its parent; none of another disk."""
    footer = find_footer(container)
    if footer is None or footer.type != DIFFERENCING:
        return []
    return _parent_paths(container, footer.data_offset)


def open_vhd(container: Image, siblings: Siblings) -> Image:
    """The disk of a VHD file.

    Raises:
        CorruptError: the file contradicts the format, or its parent is missing or another.
        UnsupportedError: it is of an unknown type.
    """
    footer = find_footer(container)
    if footer is None:
        raise UnsupportedError("not a VHD: there is no footer")
    if footer.type == FIXED:
        if footer.size > container.size:
            raise CorruptError(
                f"fixed VHD: expected {footer.size} bytes and a footer, the file has "
                f"{container.size}; it is cut short"
            )
        return FixedVhd(container, footer.disk_bytes)
    if footer.type not in (DYNAMIC, DIFFERENCING):
        raise UnsupportedError(f"VHD: type {footer.type} is not known")
    header = _header(container, footer)
    parent = _parent(container, footer, header, siblings) if footer.type == DIFFERENCING else None
    return DynamicVhd(container, footer.disk_bytes, header, parent)


def _header(container: Image, footer: Footer) -> Header:
    where = f"VHD dynamic header at {footer.data_offset}"
    content = read_exactly(container, footer.data_offset, HEADER_BYTES, where)
    cookie, _, table_offset, _, entries, block_bytes, _, parent_id, _, name = HEADER.unpack_from(
        content
    )
    if cookie != HEADER_COOKIE:
        raise CorruptError(f"{where}: expected cxsparse, got {cookie!r}")
    _check_sum(content, _HEADER_CHECKSUM, where)
    whole = block_bytes % SECTOR_BYTES == 0 and block_bytes & (block_bytes - 1) == 0
    if not whole or not 0 < block_bytes <= BLOCK_BYTES_MAX:
        raise CorruptError(f"VHD: block size: expected a power of two, got {block_bytes}")
    needed = -(-footer.disk_bytes // block_bytes)
    if entries < needed:
        raise CorruptError(f"VHD: block table: expected {needed} entries, got {entries}")
    text = name.decode("utf-16-be", errors="replace").partition("\0")[0]
    return Header(table_offset, block_bytes, parent_id, text)


def _parent_paths(container: Image, header_at: int) -> list[str]:
    """Paths of the parent, as the locators and then as the header's plain name have it."""
    content = read_exactly(container, header_at, HEADER_BYTES, "VHD dynamic header")
    _check_sum(content, _HEADER_CHECKSUM, f"VHD dynamic header at {header_at}")
    found: dict[bytes, str] = {}
    for number in range(LOCATORS):
        code, _, length, _, offset = LOCATOR.unpack_from(
            content, LOCATORS_OFFSET + number * LOCATOR.size
        )
        if code in (RELATIVE, ABSOLUTE) and length <= LOCATOR_BYTES_MAX:
            where = f"VHD parent locator {number}"
            path = read_exactly(container, offset, length, where)
            found[code] = path.decode("utf-16-le", errors="replace").rstrip("\0")
    name = HEADER.unpack_from(content)[9].decode("utf-16-be", errors="replace").partition("\0")[0]
    return [path for path in (found.get(RELATIVE), found.get(ABSOLUTE), name) if path]


def _parent(container: Image, footer: Footer, header: Header, siblings: Siblings) -> Image:
    paths = _parent_paths(container, footer.data_offset)
    file, above = siblings.file(paths, "VHD parent")
    found = find_footer(file)
    if found is None or found.unique_id != header.parent_id:
        got = found.unique_id.hex() if found else "no VHD"
        raise CorruptError(
            f"VHD parent {header.parent_name!a}: id: expected {header.parent_id.hex()}, got {got}"
        )
    return open_vhd(file, above)


class FixedVhd(MappedImage):
    """A fixed disk: the file without its footer."""

    def __init__(self, container: Image, size: int) -> None:
        super().__init__(size)
        self._container = container

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, ExtentKind.DATA, self._container, offset)


class DynamicVhd(BlockImage):
    """A disk of blocks, each with a bitmap of the sectors that it has.

    All others are the parent's, or zeros without one: a block need not have been cleared.
    """

    def __init__(self, container: Image, size: int, header: Header, parent: Image | None) -> None:
        super().__init__(size, header.block_bytes, container, parent, "VHD block")
        sectors = header.block_bytes // SECTOR_BYTES
        self._bitmap_bytes = -(-sectors // (8 * SECTOR_BYTES)) * SECTOR_BYTES
        count = -(-size // header.block_bytes)
        self._table = Table(container, header.table_offset, count, ">u4", "VHD block table")
        whole_sectors = (self._bitmap_bytes + header.block_bytes) // SECTOR_BYTES
        self._shared = shared(self._table, UNUSED, whole_sectors)

    def _entries(self, first: int, end: int) -> Iterator[Entries]:
        return self._table.entries(first, end)

    def _places(self, values: Values) -> Places:
        return np.where(values == UNUSED, np.int64(ABSENT), np.int64(SINGLE))

    def _single(self, block: int, low: int, high: int) -> Iterator[Extent]:
        """A block's own sectors are those that its bitmap has."""
        sector = int(self._table.entry(block))
        start = block * self._block_bytes
        low, high = max(start, low), min(start + self._block_bytes, self.size, high)
        place = sector * SECTOR_BYTES + self._bitmap_bytes
        end = place + min(self._block_bytes, self.size - start)
        if sector == 0 or sector in self._shared or end > self._file.size:
            raise CorruptError(
                f"VHD block {block}: expected it alone within the file's {self._file.size} bytes, "
                f"got {place}; the file is cut short or its table damaged"
            )
        first = (low - start) // SECTOR_BYTES
        count = -(-(high - start) // SECTOR_BYTES) - first
        at = place - self._bitmap_bytes + first // 8
        bitmap = self._file.read(at, (first % 8 + count + 7) // 8)
        for own, bit, sectors in bit_runs(bitmap, first % 8, count, "big"):
            inside = (first - first % 8 + bit) * SECTOR_BYTES
            length = sectors * SECTOR_BYTES
            if own:
                yield Extent(start + inside, length, ExtentKind.DATA, self._file, place + inside)
            else:
                yield from beneath(self._parent, start + inside, length)
