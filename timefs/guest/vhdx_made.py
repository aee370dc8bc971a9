"""Any disk presented as a VHDX file, made on read.

Defined here and only here: `made_vhdx`. Used by timefs.guest.detect. Immutable and thread-safe. All
blocks are present, as in a fixed disk, so that the block table follows from the size alone and
nothing of the disk is read to open it; what is zeros in the disk is a hole in the file. The same
disk under the same identity always gives the same bytes.

Source: [MS-VHDX] 2.
"""

import struct
import uuid
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

import numpy as np
from google_crc32c import value as _crc32c  # pyright: ignore[reportUnknownVariableType]  # untyped

from store.image import BytesImage, Extent, ExtentKind, Image
from timefs.guest.joined import JoinedImage, Piece
from timefs.guest.vhdx import (
    BAT_REGION,
    BITMAP_SECTORS,
    DISK_ID,
    DISK_SIZE,
    FILE_PARAMETERS,
    HEADER,
    HEADER_BYTES,
    METADATA,
    METADATA_REGION,
    MIB,
    PHYSICAL_SECTOR_SIZE,
    REGION,
    REGION_TABLE_BYTES,
    SECTOR_SIZE,
    SIGNATURE,
)

SLOT_BYTES: Final = 64 << 10
LOG_OFFSET: Final = MIB
METADATA_OFFSET: Final = 2 * MIB
BAT_OFFSET: Final = 3 * MIB
SMALL_DISK_BYTES: Final = 64 << 30
SMALL_BLOCK_BYTES: Final = MIB
BLOCK_BYTES: Final = 32 * MIB
LEAVE_ALLOCATED: Final = 1
FULLY_PRESENT: Final = 6
IS_REQUIRED: Final = 4
IS_DISK: Final = 2


def _guid(identity: bytes, purpose: bytes) -> bytes:
    digest = blake2b(identity, digest_size=16, person=purpose).digest()
    return uuid.UUID(bytes=digest, version=4).bytes_le


def _sealed(content: bytes) -> bytes:
    checksum = int(_crc32c(content))  # pyright: ignore[reportUnknownArgumentType]
    return content[:4] + checksum.to_bytes(4, "little") + content[8:]


def _front(identity: bytes, bat_bytes: int) -> bytes:
    """The first five slots: identifier, two headers, two region tables."""
    slots = [SIGNATURE + "timefs".encode("utf-16-le")]
    for sequence in (1, 2):
        header = HEADER.pack(
            b"head", 0, sequence, _guid(identity, b"file"), _guid(identity, b"data"), bytes(16),
            0, 1, MIB, LOG_OFFSET,
        )  # fmt: skip
        slots.append(_sealed(header.ljust(HEADER_BYTES, b"\0")))
    regions = struct.pack("<4sIII", b"regi", 0, 2, 0)
    regions += REGION.pack(BAT_REGION, BAT_OFFSET, bat_bytes, 1)
    regions += REGION.pack(METADATA_REGION, METADATA_OFFSET, MIB, 1)
    slots += [_sealed(regions.ljust(REGION_TABLE_BYTES, b"\0"))] * 2
    return b"".join(slot.ljust(SLOT_BYTES, b"\0") for slot in slots)


def _metadata(identity: bytes, size: int, block_bytes: int, sector_bytes: int) -> bytes:
    items = (
        (FILE_PARAMETERS, struct.pack("<II", block_bytes, LEAVE_ALLOCATED), IS_REQUIRED),
        (DISK_SIZE, struct.pack("<Q", size), IS_REQUIRED | IS_DISK),
        (SECTOR_SIZE, struct.pack("<I", sector_bytes), IS_REQUIRED | IS_DISK),
        (PHYSICAL_SECTOR_SIZE, struct.pack("<I", 4096), IS_REQUIRED | IS_DISK),
        (DISK_ID, _guid(identity, b"disk"), IS_REQUIRED | IS_DISK),
    )
    table = struct.pack("<8sHH20x", b"metadata", 0, len(items))
    values = b""
    for guid, value, flags in items:
        table += METADATA.pack(guid, REGION_TABLE_BYTES + len(values), len(value), flags, 0)
        values += value
    return table.ljust(REGION_TABLE_BYTES, b"\0") + values


class _BlockTable(Image):
    """The block table's bytes, computed: every block present, no bitmap block."""

    def __init__(self, blocks: int, block_bytes: int, chunk_blocks: int) -> None:
        self._size = (blocks + (blocks - 1) // chunk_blocks) * 8
        self._block_bytes = block_bytes
        self._chunk_blocks = chunk_blocks
        self.payload_offset: Final = BAT_OFFSET + -(-self._size // MIB) * MIB

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, buffer: memoryview) -> int:
        wanted = max(0, min(len(buffer), self._size - offset))
        first, end = offset // 8, -(-(offset + wanted) // 8)
        index = np.arange(first, end, dtype="<u8")
        chunk, within = np.divmod(index, self._chunk_blocks + 1)
        block = chunk * self._chunk_blocks + within
        entries = block * self._block_bytes + (self.payload_offset + FULLY_PRESENT)
        entries[within == self._chunk_blocks] = 0
        start = offset - first * 8
        buffer[:wanted] = entries.tobytes()[start : start + wanted]
        return wanted

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        length = min(length, self._size - offset)
        if length > 0:
            yield Extent(offset, length, ExtentKind.DATA, self, offset)


def made_vhdx(disk: Image, identity: bytes, sector_bytes: int) -> Image:
    """The file: our tables, then the disk's bytes."""
    shown = max(-(-disk.size // sector_bytes), 1) * sector_bytes
    block_bytes = SMALL_BLOCK_BYTES if shown <= SMALL_DISK_BYTES else BLOCK_BYTES
    blocks = -(-shown // block_bytes)
    table = _BlockTable(blocks, block_bytes, BITMAP_SECTORS * sector_bytes // block_bytes)
    front = _front(identity, table.payload_offset - BAT_OFFSET)
    metadata = _metadata(identity, shown, block_bytes, sector_bytes)
    return JoinedImage(
        table.payload_offset + blocks * block_bytes,
        [
            Piece(0, len(front), BytesImage(front), 0),
            Piece(METADATA_OFFSET, len(metadata), BytesImage(metadata), 0),
            Piece(BAT_OFFSET, table.size, table, 0),
            Piece(table.payload_offset, disk.size, disk, 0),
        ],
    )
