"""VHD: fixed and dynamic virtual hard disks as images.

Defined here and only here. Used by timefs.guest.detect. Immutable and thread-safe. Differencing
disks are not supported yet.

Source: Virtual Hard Disk Image Format Specification 1.0 (Microsoft, 2006).
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, Image, MappedImage, read_exactly

COOKIE: Final = b"conectix"
FOOTER_BYTES: Final = 512
FOOTER: Final = struct.Struct(">8sIIQI4sI4sQQIII16sB")
HEADER: Final = struct.Struct(">8sQQIIII")
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
    _, _, _, data_offset, _, _, _, _, _, size, _, kind, *_ = FOOTER.unpack_from(
        content.ljust(FOOTER_BYTES, b"\0")
    )
    if not 0 < size <= DISK_BYTES_MAX or size % SECTOR_BYTES:
        raise CorruptError(f"VHD footer at {offset}: size: expected whole sectors, got {size}")
    return Footer(data_offset, size, kind)


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


def open_vhd(container: Image) -> Image:
    """The disk of a VHD file.

    Raises:
        CorruptError: the file contradicts the format.
        UnsupportedError: it is a differencing disk or of an unknown type.
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
    if footer.type == DYNAMIC:
        return DynamicVhd(container, footer)
    kind = "a differencing disk" if footer.type == DIFFERENCING else f"of type {footer.type}"
    raise UnsupportedError(f"VHD: it is {kind}; only fixed and dynamic disks are decoded")


class FixedVhd(MappedImage):
    """A fixed disk: the file without its footer."""

    def __init__(self, container: Image, size: int) -> None:
        super().__init__(size)
        self._container = container

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, ExtentKind.DATA, self._container, offset)


class DynamicVhd(MappedImage):
    """A dynamic disk: blocks where the table says, zeros where it says nothing.

    The bitmap before each block is not consulted: without a parent, a sector that it does not mark
    was never written and is stored as zeros, so both readings agree; qemu reads it the same way.
    """

    def __init__(self, container: Image, footer: Footer) -> None:
        super().__init__(footer.size)
        self._container = container
        content = read_exactly(container, footer.data_offset, HEADER_BYTES, "VHD dynamic header")
        cookie, _, table_offset, _, entries, block_bytes, _ = HEADER.unpack_from(content)
        if cookie != HEADER_COOKIE:
            raise CorruptError(
                f"VHD dynamic header at {footer.data_offset}: expected cxsparse, got {cookie!r}"
            )
        _check_sum(content, _HEADER_CHECKSUM, f"VHD dynamic header at {footer.data_offset}")
        whole = block_bytes % SECTOR_BYTES == 0 and block_bytes & (block_bytes - 1) == 0
        if not whole or not 0 < block_bytes <= BLOCK_BYTES_MAX:
            raise CorruptError(f"VHD: block size: expected a power of two, got {block_bytes}")
        if entries * block_bytes < footer.size:
            raise CorruptError(
                f"VHD: block table: expected {-(-footer.size // block_bytes)} entries, "
                f"got {entries}"
            )
        if table_offset + -(-footer.size // block_bytes) * 4 > container.size:
            raise CorruptError(f"VHD: block table at {table_offset}: it ends beyond the file")
        self._table_offset = table_offset
        self._block_bytes = block_bytes
        bitmap_bytes = block_bytes // SECTOR_BYTES // 8
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
                yield Extent(start, size, ExtentKind.ZERO, None, 0)
                continue
            place = sector * SECTOR_BYTES + self._bitmap_bytes
            if sector == 0 or place + size > self._container.size:
                raise CorruptError(
                    f"VHD block {number}: expected it within the file's {self._container.size} "
                    f"bytes, got {place}"
                )
            yield Extent(start, size, ExtentKind.DATA, self._container, place)
