"""VHD: fixed, dynamic and differencing virtual hard disks as images.

Defined here and only here. Used by timefs.guest.detect. Immutable and thread-safe. Tables and
bitmaps are read as needed.

Source: Virtual Hard Disk Image Format Specification 1.0 (Microsoft, 2006).
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, Image, MappedImage, read_exactly
from timefs.guest.beneath import beneath
from timefs.guest.bitmap import bit_runs
from timefs.guest.siblings import Siblings

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

FIXED: Final = 2
DYNAMIC: Final = 3
DIFFERENCING: Final = 4

_FOOTER_CHECKSUM: Final = 64
_HEADER_CHECKSUM: Final = 36


class Footer(NamedTuple):
    """The footer's fields that matter here."""

    data_offset: int
    size: int
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
    _, _, _, data_offset, _, _, _, _, _, size, _, kind, _, unique_id, _ = FOOTER.unpack_from(
        content.ljust(FOOTER_BYTES, b"\0")
    )
    if not 0 < size <= DISK_BYTES_MAX or size % SECTOR_BYTES:
        raise CorruptError(f"VHD footer at {offset}: size: expected whole sectors, got {size}")
    return Footer(data_offset, size, kind, unique_id)


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
        return FixedVhd(container, footer.size)
    if footer.type not in (DYNAMIC, DIFFERENCING):
        raise UnsupportedError(f"VHD: type {footer.type} is not known")
    header = _header(container, footer)
    parent = _parent(container, footer, header, siblings) if footer.type == DIFFERENCING else None
    return DynamicVhd(container, footer.size, header, parent)


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
    needed = -(-footer.size // block_bytes)
    if entries < needed:
        raise CorruptError(f"VHD: block table: expected {needed} entries, got {entries}")
    if table_offset + needed * 4 > container.size:
        raise CorruptError(f"VHD: block table at {table_offset}: it ends beyond the file")
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


class DynamicVhd(MappedImage):
    """A disk of blocks: where the table says, else the parent's bytes, or zeros without one.

    The bitmap before each block counts only with a parent: without one, a sector that it does not
    mark was never written and is stored as zeros, so both readings agree; qemu reads it so too.
    """

    def __init__(self, container: Image, size: int, header: Header, parent: Image | None) -> None:
        super().__init__(size)
        self._container = container
        self._parent = parent
        self._table_offset = header.table_offset
        self._block_bytes = header.block_bytes
        bitmap_bytes = header.block_bytes // SECTOR_BYTES // 8
        self._bitmap_bytes = -(-max(bitmap_bytes, 1) // SECTOR_BYTES) * SECTOR_BYTES

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        first = offset // self._block_bytes
        end = -(-(offset + length) // self._block_bytes)
        where = f"VHD block table entries {first} to {end}"
        table = read_exactly(
            self._container, self._table_offset + first * 4, (end - first) * 4, where
        )
        for number, (sector,) in enumerate(struct.iter_unpack(">I", table), first):
            start = number * self._block_bytes
            size = min(self._block_bytes, self.size - start)
            if sector == UNUSED:
                yield from beneath(self._parent, start, size)
                continue
            place = sector * SECTOR_BYTES + self._bitmap_bytes
            if sector == 0 or place + size > self._container.size:
                raise CorruptError(
                    f"VHD block {number}: expected it within the file's {self._container.size} "
                    f"bytes, got {place}"
                )
            if self._parent is None:
                yield Extent(start, size, ExtentKind.DATA, self._container, place)
            else:
                low, high = max(start, offset), min(start + size, offset + length)
                yield from self._partly(number, place, low, high)

    def _partly(self, number: int, place: int, low: int, high: int) -> Iterator[Extent]:
        """The sectors of a block from `low` to `high`: its own where its bitmap says so."""
        start = number * self._block_bytes
        bitmap = read_exactly(
            self._container, place - self._bitmap_bytes, self._bitmap_bytes, f"VHD bitmap {number}"
        )
        first = (low - start) // SECTOR_BYTES
        count = -(-(high - start) // SECTOR_BYTES) - first
        for own, sector, sectors in bit_runs(bitmap, first, count, "big"):
            at, length = start + sector * SECTOR_BYTES, sectors * SECTOR_BYTES
            if own:
                inside = at - start
                yield Extent(at, length, ExtentKind.DATA, self._container, place + inside)
            else:
                yield from beneath(self._parent, at, length)
