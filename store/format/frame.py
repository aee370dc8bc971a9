"""Frames: neighbouring blocks compressed together, at most 16 of them.

Defined here and only here: how a frame's bytes are encoded, and the row of a pack's frame table.
Used by the pack writer and the pack reader. Thread-safe: compressors are one a thread.
"""

import threading
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import zstandard

from store.errors import DamagedError
from store.format.digest import checksum
from store.format.row import BLOCK_BYTES

FRAME_BLOCKS_MAX: Final = 8
"""32 KiB: what decodes in one step (docs/adr/0009). The format allows 16."""

SCATTERED_BLOCKS_MAX: Final = 4
"""A frame of blocks that are not neighbours is closed at 16 KiB, for random reads' sake."""

ZSTD_LEVEL: Final = 3
RAW_ABOVE: Final = 0.97
"""A frame that shrinks less than this is stored as it is."""

FRAME: Final = np.dtype(
    [("stored_bytes", "<u4"), ("blocks", "<u1"), ("codec", "<u1"), ("checksum", "<u8")]
)


class Codec(IntEnum):
    """How a frame's bytes are stored. Numbers are part of format 1."""

    RAW = 0
    ZSTD = 1


class Frame(NamedTuple):
    """An encoded frame."""

    stored: bytes
    blocks: int
    codec: Codec
    checksum: int


_local = threading.local()


def encode_frame(plain: bytes) -> Frame:
    """Compress whole blocks into a frame."""
    compressor: zstandard.ZstdCompressor | None = getattr(_local, "compressor", None)
    if compressor is None:
        compressor = _local.compressor = zstandard.ZstdCompressor(
            level=ZSTD_LEVEL, write_checksum=False, write_content_size=False
        )
    packed = compressor.compress(plain)
    blocks = len(plain) // BLOCK_BYTES
    if len(packed) > len(plain) * RAW_ABOVE:
        return Frame(plain, blocks, Codec.RAW, checksum(plain))
    return Frame(packed, blocks, Codec.ZSTD, checksum(packed))


def decode_frame(
    stored: bytes | memoryview, blocks: int, codec: int, expected: int
) -> bytes | memoryview:
    """The blocks of a frame, verified; those of a raw frame are `stored` itself.

    Raises:
        DamagedError: the stored bytes are not those that were written.
    """
    got = checksum(stored)
    if got != expected:
        raise DamagedError(f"checksum: expected {expected:016x}, got {got:016x}")
    if codec == Codec.RAW:
        plain = stored
    elif codec == Codec.ZSTD:
        decompressor: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
        if decompressor is None:
            decompressor = _local.decompressor = zstandard.ZstdDecompressor()
        try:
            if zstandard.frame_content_size(stored) != -1:  # zstd would allocate what it claims
                raise DamagedError("zstd: expected a frame that leaves its size to the table")
            plain = decompressor.decompress(stored, max_output_size=blocks * BLOCK_BYTES)
        except zstandard.ZstdError as error:
            raise DamagedError(f"zstd: {error}") from error
    else:
        raise DamagedError(f"codec: expected 0 or 1, got {codec}")
    if len(plain) != blocks * BLOCK_BYTES:
        raise DamagedError(f"expected {blocks * BLOCK_BYTES} bytes decoded, got {len(plain)}")
    return plain
