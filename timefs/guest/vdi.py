"""VDI: VirtualBox's fixed and dynamic disks as images.

Defined here and only here. Used by timefs.guest.detect. Immutable and thread-safe. The block map is
read as needed. Differencing disks name their parent by an id alone and are not supported.

Source: VDI core header 1.1 as QEMU's block/vdi.c documents it.
"""

import struct
from collections.abc import Iterator
from typing import Final

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, Image, MappedImage, read_exactly

SIGNATURE_OFFSET: Final = 64
SIGNATURE: Final = (0xBEDA107F).to_bytes(4, "little")
HEADER: Final = struct.Struct("<IIIII256sIIIIIIIQIIII")
VERSION: Final = 0x00010001
DYNAMIC: Final = 1
FIXED: Final = 2
UNALLOCATED: Final = 0xFFFFFFFF
DISCARDED: Final = 0xFFFFFFFE
SECTOR_BYTES: Final = 512
BLOCK_BYTES_MAX: Final = 1 << 30
DISK_BYTES_MAX: Final = 1 << 60


def is_vdi(container: Image) -> bool:
    """Whether a file is a VDI."""
    return container.read(SIGNATURE_OFFSET, 4) == SIGNATURE


def open_vdi(container: Image) -> Image:
    """The disk of a VDI file.

    Raises:
        CorruptError: the file contradicts the format.
        UnsupportedError: it is a differencing disk, or of another version or kind.
    """
    return Vdi(container)


class Vdi(MappedImage):
    """The disk: blocks where the map says, else zeros."""

    def __init__(self, container: Image) -> None:
        content = read_exactly(container, SIGNATURE_OFFSET, HEADER.size, "VDI header")
        fields = HEADER.unpack(content)
        _, version, _, kind, _, _, map_at, data_at, _, _, _, sector_bytes, _, size = fields[:14]
        block_bytes, extra_bytes, blocks, _ = fields[14:]
        if version != VERSION:
            raise UnsupportedError(f"VDI: expected version 1.1, got {version:#010x}")
        if kind not in (DYNAMIC, FIXED):
            raise UnsupportedError(f"VDI: kind {kind} (a difference to a parent) is not decoded")
        if sector_bytes != SECTOR_BYTES or extra_bytes % SECTOR_BYTES:
            raise UnsupportedError(f"VDI: expected sectors of 512 bytes, got {sector_bytes}")
        if not 0 < block_bytes <= BLOCK_BYTES_MAX or block_bytes % SECTOR_BYTES:
            raise CorruptError(f"VDI header: block size: expected sectors, got {block_bytes}")
        if size > DISK_BYTES_MAX or blocks < -(-size // block_bytes):
            raise CorruptError(f"VDI header: {blocks} blocks do not hold a disk of {size} bytes")
        if map_at + blocks * 4 > container.size:
            raise CorruptError("VDI block map: it ends beyond the file, which is cut short")
        if data_at % SECTOR_BYTES or data_at < SIGNATURE_OFFSET + HEADER.size:
            raise CorruptError(f"VDI header: offset of data: expected a sector, got {data_at}")
        super().__init__(size)
        self._container = container
        self._map_at = map_at
        self._data_at = data_at
        self._block_bytes = block_bytes
        self._extra_bytes = extra_bytes
        self._blocks = blocks

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        first = offset // self._block_bytes
        end = -(-(offset + length) // self._block_bytes)
        where = f"VDI block map entries {first} to {end}"
        table = read_exactly(self._container, self._map_at + first * 4, (end - first) * 4, where)
        for block, (entry,) in enumerate(struct.iter_unpack("<I", table), first):
            start = block * self._block_bytes
            size = min(self._block_bytes, self.size - start)
            if entry in (UNALLOCATED, DISCARDED):
                yield Extent(start, size, ExtentKind.ZERO, None, 0)
                continue
            stride = self._block_bytes + self._extra_bytes
            place = self._data_at + entry * stride + self._extra_bytes
            if entry >= self._blocks or place + size > self._container.size:
                raise CorruptError(
                    f"VDI block {block}: expected one of {self._blocks} within the file's "
                    f"{self._container.size} bytes, got {entry} at {place}"
                )
            yield Extent(start, size, ExtentKind.DATA, self._container, place)
