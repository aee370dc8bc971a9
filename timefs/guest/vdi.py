"""VDI: VirtualBox's fixed and dynamic disks as images.

Defined here and only here. Used by timefs.guest.detect. Immutable and thread-safe. The block map is
looked through when the disk is opened, and read as needed. Differencing disks name their parent by
an id alone and are not supported.

Source: VDI core header 1.1 as QEMU's block/vdi.c documents it.
"""

import struct
import uuid
from collections.abc import Iterator
from typing import Final

import numpy as np

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, Image, read_exactly
from timefs.guest.blocks import SINGLE, ZERO, BlockImage
from timefs.guest.tables import Entries, Places, Table, Values, shared

SIGNATURE_OFFSET: Final = 64
SIGNATURE: Final = (0xBEDA107F).to_bytes(4, "little")
HEADER: Final = struct.Struct("<IIIII256sIIIIIIIQIIII16s16s16s16s")
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


class Vdi(BlockImage):
    """The disk: blocks where the map says, else zeros."""

    def __init__(self, container: Image) -> None:
        content = read_exactly(container, SIGNATURE_OFFSET, HEADER.size, "VDI header")
        fields = HEADER.unpack(content)
        _, version, _, kind, _, _, map_at, data_at, _, _, _, sector_bytes, _, size = fields[:14]
        block_bytes, extra_bytes, blocks, _, _, _, *parents = fields[14:]
        if version != VERSION:
            raise UnsupportedError(f"VDI: expected version 1.1, got {version:#010x}")
        if kind not in (DYNAMIC, FIXED):
            raise UnsupportedError(f"VDI: kind {kind} (a difference to a parent) is not decoded")
        for parent in parents:
            if any(parent):
                name = uuid.UUID(bytes_le=parent)
                raise UnsupportedError(f"VDI: a difference to parent {name} is not decoded")
        if sector_bytes != SECTOR_BYTES or extra_bytes % SECTOR_BYTES:
            raise UnsupportedError(
                f"VDI: expected sectors of 512 bytes, got {sector_bytes}, and {extra_bytes} a block"
            )
        if extra_bytes > BLOCK_BYTES_MAX:
            raise CorruptError(f"VDI header: {extra_bytes} bytes before each block are too many")
        if not 0 < block_bytes <= BLOCK_BYTES_MAX or block_bytes % SECTOR_BYTES:
            raise CorruptError(f"VDI header: block size: expected sectors, got {block_bytes}")
        size = -(-size // SECTOR_BYTES) * SECTOR_BYTES  # VirtualBox writes odd sizes as well
        if size > DISK_BYTES_MAX or blocks < -(-size // block_bytes):
            raise CorruptError(f"VDI header: {blocks} blocks do not hold a disk of {size} bytes")
        if data_at % SECTOR_BYTES or data_at < SIGNATURE_OFFSET + HEADER.size:
            raise CorruptError(f"VDI header: offset of data: expected a sector, got {data_at}")
        super().__init__(size, block_bytes, container, None, "VDI block")
        self._blocks = blocks
        self._map = Table(container, map_at, -(-size // block_bytes), "<u4", "VDI block map")
        self._data_at = data_at
        self._extra_bytes = extra_bytes
        self._shared = shared(self._map, DISCARDED, 1)

    def _entries(self, first: int, end: int) -> Iterator[Entries]:
        return self._map.entries(first, end)

    def _places(self, values: Values) -> Places:
        stride = self._block_bytes + self._extra_bytes
        places = values.astype(np.int64) * stride + (self._data_at + self._extra_bytes)
        places[(values >= self._blocks) | np.isin(values, self._shared)] = SINGLE
        places[values >= DISCARDED] = ZERO
        return places

    def _single(self, block: int, low: int, high: int) -> Iterator[Extent]:
        del low, high
        raise CorruptError(
            f"VDI block {block}: expected one of {self._blocks} for it alone, "
            f"got {self._map.entry(block)}"
        )
