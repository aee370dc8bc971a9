"""The journal: replayed in memory, as an overlay of extents; never written.

Defined here and only here: `replayed`, and what a journal's superblock says. Used by `volume`. The
overlay is immutable and thread-safe; it holds 16 bytes for each block that the journal has newer.

The rules are those of the kernel's recovery: transactions count up to the first that is not whole;
a revoked block is not replayed by transactions up to the one that revoked it; a wrong checksum in
what must be replayed stops everything. Not done, and said so: journals on another device, and fast
commits.

Source: Linux kernel documentation, "ext4 Data Structures and Algorithms", Journal (jbd2), Fast
Commits; for the order of passes and the meaning of commit times, the behaviour of a real mount.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage, Extent, ExtentKind, Image, MappedImage, read_exactly
from timefs.guest.ext.checksum import ALL_ONES, crc32c
from timefs.guest.ext.content import mapped
from timefs.guest.ext.journal_log import MAGIC, Features, Geometry, Log
from timefs.guest.ext.superblock import Compatible
from timefs.guest.ext.table import Table
from timefs.guest.extents import refuse_repeated

SUPERBLOCK_BYTES: Final = 1024
SUPERBLOCK_KINDS: Final = (3, 4)
CHECKSUM_KIND_CRC32C: Final = 4
FAST_BLOCKS: Final = 256
FAST_LEFT_MIN: Final = 1024
FAST_HEAD: Final = 9
BLOCKS_MAX: Final = 1 << 20
"""Blocks that a replay may put over a volume: what bounds its memory."""

_CHECKSUM: Final = slice(0xFC, 0x100)
_ESCAPED: Final = BytesImage(MAGIC)
"""How a block began that is stored without it, not to be taken for one of the journal's own."""


class Replay(NamedTuple):
    """A volume after recovery."""

    image: Image
    transactions: int


def replayed(table: Table) -> Replay:
    """The volume as it is after its journal has been replayed.

    Raises:
        CorruptError: the journal contradicts itself where it must be right.
        UnsupportedError: it is of a kind that is not replayed.
    """
    superblock = table.superblock
    if not superblock.compatible & Compatible.JOURNAL:
        raise CorruptError("ext journal: the volume needs recovery and has none")
    if superblock.journal_inode == 0:
        raise UnsupportedError("ext journal: it is on another device")
    journal = mapped(table, table.inode(superblock.journal_inode))
    geometry = _geometry(journal, superblock.block_bytes)
    if geometry.start == 0:
        return Replay(table.volume, 0)
    refuse_repeated(journal.runs(0, geometry.blocks), "ext journal")
    log = Log(journal, geometry)
    revoked: dict[int, int] = {}
    count = 0
    for count, transaction in enumerate(log.transactions(), 1):
        revoked.update(dict.fromkeys(transaction.revoked, count))
    _refuse_fast_commits(journal, geometry, count)
    newest: dict[int, int] = {}
    for number, transaction in enumerate(islice(log.transactions(), count), 1):
        for tag in transaction.tags:
            if revoked.get(tag.block, 0) >= number:
                continue
            if tag.block >= superblock.blocks:
                raise CorruptError(f"ext journal: block {tag.block} is beyond the volume")
            log.verify(tag, transaction.sequence)
            newest[tag.block] = tag.place << 1 | tag.escaped
        if len(newest) > BLOCKS_MAX:
            raise UnsupportedError(f"ext journal: it holds more than {BLOCKS_MAX} blocks")
    return Replay(Overlay(table.volume, journal, newest, superblock.block_bytes), count)


def _geometry(journal: Image, block_bytes: int) -> Geometry:
    """What the journal's superblock says, checked."""
    content = read_exactly(journal, 0, SUPERBLOCK_BYTES, "ext journal superblock")

    def number(at: int) -> int:
        return int.from_bytes(content[at : at + 4], "big")

    kind = number(4)
    if content[:4] != MAGIC or kind not in SUPERBLOCK_KINDS:
        raise CorruptError(f"ext journal: expected its superblock, got {content[:8].hex()}")
    features = Features(number(0x28)) if kind == SUPERBLOCK_KINDS[1] else Features(0)
    checksummed = bool(number(0x24) & 1) and kind == SUPERBLOCK_KINDS[1]
    if features & ~Features.KNOWN:
        raise UnsupportedError(f"ext journal: unknown features {features & ~Features.KNOWN:#x}")
    seed = None
    if features & (Features.CHECKSUMS_2 | Features.CHECKSUMS_3):
        cleared = content[: _CHECKSUM.start] + bytes(4) + content[_CHECKSUM.stop :]
        if content[0x50] != CHECKSUM_KIND_CRC32C:
            raise UnsupportedError(f"ext journal: checksums of kind {content[0x50]}")
        if content[_CHECKSUM] != crc32c(ALL_ONES, cleared).to_bytes(4, "big"):
            raise CorruptError("ext journal superblock: wrong checksum")
        seed = crc32c(ALL_ONES, content[0x30:0x40])
    blocks, first, start = number(0x10), number(0x14), number(0x1C)
    fast = number(0x54) or FAST_BLOCKS
    end = blocks
    if features & Features.FAST_COMMITS and blocks - fast >= FAST_LEFT_MIN:
        end = blocks - fast
    if number(0x0C) != block_bytes or blocks * block_bytes > journal.size:
        raise CorruptError(
            f"ext journal: expected {journal.size} bytes in blocks of {block_bytes}, "
            f"got {blocks} blocks of {number(0x0C)}"
        )
    if not 0 < first < end or not (start == 0 or first <= start < end):
        raise CorruptError(f"ext journal: it starts at {start}, beyond {first} to {end}")
    return Geometry(
        block_bytes,
        blocks,
        first,
        end,
        start,
        number(0x18),
        features,
        seed,
        checksummed=checksummed,
    )


def _refuse_fast_commits(journal: Image, geometry: Geometry, transactions: int) -> None:
    """Raises UnsupportedError if there are fast commits that belong after the last transaction.

    Source: Linux kernel documentation, "Journal (jbd2)", Fast Commits: a head names the
    transaction that it follows.
    """
    if not geometry.features & Features.FAST_COMMITS:
        return
    following = (geometry.sequence + transactions) & ALL_ONES
    for block in (geometry.end, geometry.end + 1):
        head = journal.read(block * geometry.block_bytes, 12)
        if int.from_bytes(head[:2], "little") == FAST_HEAD and (
            int.from_bytes(head[8:12], "little") == following
        ):
            raise UnsupportedError("ext journal: it ends in fast commits")


class Overlay(MappedImage):
    """A volume with blocks of its journal over it."""

    def __init__(
        self, volume: Image, journal: Image, newest: dict[int, int], block_bytes: int
    ) -> None:
        """`newest` is, by block of the volume, a block of the journal twice, plus 1 if escaped."""
        super().__init__(volume.size)
        self._volume = volume
        self._journal = journal
        self._block_bytes = block_bytes
        blocks = sorted(newest)
        self._blocks = array("Q", blocks)
        self._places = array("Q", (newest[block] for block in blocks))

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        block_bytes = self._block_bytes
        end = offset + length
        index = bisect_left(self._blocks, offset // block_bytes)
        at = offset
        while index < len(self._blocks) and self._blocks[index] * block_bytes < end:
            start = self._blocks[index] * block_bytes
            if start > at:
                yield Extent(at, start - at, ExtentKind.DATA, self._volume, at)
            place, escaped = divmod(self._places[index], 2)
            hidden = 0
            if escaped:
                hidden = len(MAGIC)
                yield Extent(start, hidden, ExtentKind.DATA, _ESCAPED, 0)
            yield Extent(
                start + hidden,
                block_bytes - hidden,
                ExtentKind.DATA,
                self._journal,
                place * block_bytes + hidden,
            )
            at = start + block_bytes
            index += 1
        if at < end:
            yield Extent(at, end - at, ExtentKind.DATA, self._volume, at)
