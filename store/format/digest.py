"""Digests of blocks, checks of rows and checksums of stored bytes.

Defined here and only here. A digest is keyed, so that nobody without the repository's key can tell
what a block holds or build two that collide; a check ties a row to its blocks' digests; a checksum
needs no key, so that a server without one can scrub. Thread-safe.
"""

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from blake3 import blake3

from store.format.row import BLOCK_BYTES, DIGEST_BYTES, Bytes

CHECKSUM_BYTES: Final = 8

_WORDS: Final = BLOCK_BYTES // 8


def block_digest(key: bytes, block: bytes | memoryview) -> bytes:
    """The digest of one slot's bytes, all 4,096 of them."""
    return blake3(block, key=key).digest(length=DIGEST_BYTES)


def digests_of(key: bytes, blocks: memoryview, wanted: Sequence[int]) -> bytes:
    """The digests of the blocks numbered in `wanted`, one after the other."""
    return b"".join(
        [
            blake3(blocks[at : at + BLOCK_BYTES], key=key).digest(length=DIGEST_BYTES)
            for at in (number * BLOCK_BYTES for number in wanted)
        ]
    )


def nonzero_blocks(blocks: Bytes) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """For each whole block of an array of bytes, whether anything in it is not zero."""
    words = blocks.view(np.uint64).reshape(-1, _WORDS)
    found = words[:, 0] != 0
    rest = np.flatnonzero(~found)
    if rest.size:
        found[rest] = words[rest].any(axis=1)
    return found


def row_check(digests: bytes | memoryview) -> int:
    """The check of a row: CRC-32 of its blocks' digests, in order."""
    return zlib.crc32(digests)


def checksum(stored: bytes | memoryview) -> int:
    """The checksum of stored bytes: BLAKE3 without a key, cut to 64 bits, little-endian."""
    return int.from_bytes(blake3(stored).digest(length=CHECKSUM_BYTES), "little")
