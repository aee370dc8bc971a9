"""The journal's log: transactions out of a ring of blocks.

Defined here and only here: `Log`, `Transaction`, `Tag` and the journal's `Geometry`. Used by
`journal`. Immutable and thread-safe. Everything is big-endian.

Source: Linux kernel documentation, "ext4 Data Structures and Algorithms", Journal (jbd2).
"""

import struct
import zlib
from collections.abc import Iterator
from enum import IntFlag
from typing import Final, NamedTuple

from store.errors import CorruptError
from store.image import Image, read_exactly
from timefs.guest.ext.checksum import ALL_ONES, crc32c

MAGIC: Final = bytes.fromhex("c03b3998")
DESCRIPTOR: Final = 1
COMMIT: Final = 2
REVOKE: Final = 5

_HEADER: Final = struct.Struct(">4sII")
_TAG: Final = struct.Struct(">IHH")
_TAG_3: Final = struct.Struct(">III")
_ESCAPED: Final = 1
_SAME_ID: Final = 2
_LAST: Final = 8
_ID_BYTES: Final = 16
_TAIL_BYTES: Final = 4
_REVOKE_HEADER_BYTES: Final = 16
_COMMIT_CHECKSUM: Final = slice(16, 20)
_COMMIT_TIME: Final = slice(48, 56)
_COMMIT_BYTES: Final = 60
_CRC32: Final = b"\x01\x04"
"""A commit's kind and length of checksum when it covers the transaction's blocks."""

_MIRRORED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Features(IntFlag):
    """What a journal's reader must know."""

    REVOKES = 0x1
    WIDE = 0x2
    ASYNCHRONOUS_COMMIT = 0x4
    CHECKSUMS_2 = 0x8
    CHECKSUMS_3 = 0x10
    FAST_COMMITS = 0x20
    KNOWN = 0x3F


class Geometry(NamedTuple):
    """What the journal's superblock says; blocks are the journal's own."""

    block_bytes: int
    blocks: int
    first: int
    end: int
    start: int
    """Where the oldest transaction begins, 0 if there is none."""
    sequence: int
    features: Features
    seed: int | None
    """Where checksums begin, None if blocks have none of their own."""
    checksummed: bool
    """Whether a commit has a checksum of its transaction's blocks (the first form)."""


class Tag(NamedTuple):
    """A block of the volume and where the journal has it newer."""

    block: int
    place: int
    escaped: bool
    checksum: int


class Transaction(NamedTuple):
    """What counts as a whole."""

    sequence: int
    tags: list[Tag]
    revoked: list[int]


class Log:
    """The ring of blocks."""

    def __init__(self, journal: Image, geometry: Geometry) -> None:
        self._journal = journal
        self._geometry = geometry
        features = geometry.features
        self._own_checksums = geometry.seed is not None
        self._wide = bool(features & Features.WIDE)
        self._unordered = bool(features & Features.ASYNCHRONOUS_COMMIT)
        if features & Features.CHECKSUMS_3:
            self._tag_bytes = 16
        else:
            self._tag_bytes = (12 if self._wide else 8) + (
                2 if features & Features.CHECKSUMS_2 else 0
            )

    def transactions(self) -> Iterator[Transaction]:
        """The whole transactions, oldest first.

        Raises:
            CorruptError: one that was committed is damaged.
        """
        geometry = self._geometry
        at, sequence, last_time = geometry.start, geometry.sequence, 0
        left = geometry.end - geometry.first
        current = _Current(sequence)
        while left > 0:
            block = self._block(at)
            magic, kind, found = _HEADER.unpack_from(block)
            if magic != MAGIC or found != sequence or kind not in (DESCRIPTOR, COMMIT, REVOKE):
                return
            at, left = self._after(at, 1), left - 1
            if kind == COMMIT:
                time = int.from_bytes(block[_COMMIT_TIME], "big")
                whole = not current.damaged and self._committed(block, current)
                if not whole and time < last_time:
                    return  # left over from an earlier round of the ring
                if current.damaged or not (whole or self._unordered):
                    raise CorruptError(f"ext journal: transaction {sequence}: wrong checksum")
                if not whole:
                    return  # a commit that is not ordered after its blocks may be without them
                yield Transaction(sequence, current.tags, current.revoked)
                last_time, sequence = time, sequence + 1 & ALL_ONES
                current = _Current(sequence)
                continue
            current.damaged |= not self._whole(block)
            if kind == REVOKE:
                self._revoke(block, current)
            else:
                count = self._describe(block, at, current)
                at, left = self._after(at, count), left - count

    def verify(self, tag: Tag, sequence: int) -> None:
        """Check the block that a tag leads to.

        Raises:
            CorruptError: its checksum is wrong.
        """
        seed = self._geometry.seed
        if seed is None:
            return
        got = crc32c(crc32c(seed, sequence.to_bytes(4, "big")), self._block(tag.place))
        if not self._geometry.features & Features.CHECKSUMS_3:
            got &= 0xFFFF
        if got != tag.checksum:
            raise CorruptError(
                f"ext journal: transaction {sequence}: block {tag.block}: wrong checksum"
            )

    def _block(self, number: int) -> bytes:
        block_bytes = self._geometry.block_bytes
        return read_exactly(self._journal, number * block_bytes, block_bytes, "ext journal")

    def _after(self, at: int, count: int) -> int:
        """`count` blocks further round the ring."""
        first = self._geometry.first
        return first + (at - first + count) % (self._geometry.end - first)

    def _whole(self, block: bytes) -> bool:
        """Whether a block of descriptions or revocations has the checksum at its end."""
        seed = self._geometry.seed
        if seed is None:
            return True
        got = crc32c(seed, block[:-_TAIL_BYTES] + bytes(_TAIL_BYTES))
        return block[-_TAIL_BYTES:] == got.to_bytes(4, "big")

    def _committed(self, block: bytes, current: "_Current") -> bool:
        """Whether a transaction is whole, as far as its commit's checksum tells."""
        found = block[_COMMIT_CHECKSUM]
        if self._geometry.checksummed:
            if block[12:14] == bytes(2) and found == bytes(4):
                return True  # written before checksums were switched on
            return block[12:14] == _CRC32 and found == current.checksum()
        seed = self._geometry.seed
        if seed is None:
            return True
        cleared = block[:16] + bytes(4) + block[20:]
        bare = cleared[:_COMMIT_BYTES].ljust(len(block), b"\0")  # what follows does not count
        return found in (crc32c(seed, part).to_bytes(4, "big") for part in (cleared, bare))

    def _revoke(self, block: bytes, current: "_Current") -> None:
        end = int.from_bytes(block[12:16], "big")
        width = 8 if self._wide else 4
        if end > len(block) - (_TAIL_BYTES if self._own_checksums else 0):
            current.damaged = True
            return
        for at in range(_REVOKE_HEADER_BYTES, end - width + 1, width):
            current.revoked.append(int.from_bytes(block[at : at + width], "big"))

    def _describe(self, block: bytes, place: int, current: "_Current") -> int:
        """Add the tags of a descriptor, whose blocks follow it; answers how many there are."""
        if self._geometry.checksummed:
            current.cover(block)
        count = 0
        at = _HEADER.size
        end = len(block) - (_TAIL_BYTES if self._own_checksums else 0)
        while at + self._tag_bytes <= end:
            if self._tag_bytes == 16:
                low, flags, high = _TAG_3.unpack_from(block, at)
                checksum = int.from_bytes(block[at + 12 : at + 16], "big")
            else:
                low, checksum, flags = _TAG.unpack_from(block, at)
                high = int.from_bytes(block[at + 8 : at + 12], "big") if self._wide else 0
            number = low | (high << 32 if self._wide else 0)
            own = self._after(place, count)
            current.tags.append(Tag(number, own, bool(flags & _ESCAPED), checksum))
            if self._geometry.checksummed:
                current.cover(self._block(own))
            count += 1
            if flags & _LAST:
                break
            at += self._tag_bytes + (0 if flags & _SAME_ID else _ID_BYTES)
        return count


class _Current:
    """The transaction being read."""

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence
        self.tags: list[Tag] = []
        self.revoked: list[int] = []
        self.damaged = False
        self._crc = 0

    def cover(self, block: bytes) -> None:
        """Continue the checksum of the transaction's blocks.

        It is CRC-32 with the most significant bit first: that of the standard library over
        mirrored bytes, mirrored.
        """
        self._crc = zlib.crc32(block.translate(_MIRRORED), self._crc)

    def checksum(self) -> bytes:
        """The checksum so far, as a commit holds it."""
        return (self._crc ^ ALL_ONES).to_bytes(4, "little").translate(_MIRRORED)
