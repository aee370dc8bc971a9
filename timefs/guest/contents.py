"""Contents: what a disk or a volume holds now, and what lies beneath from before.

Defined here and only here: `Contents`, `contents`, `partition_contents`, `is_nestable` and
`is_disk_like`. Used by timefs.guest.detect, slot and disktree. Pure functions.

Nothing wipes all that was on a disk before, so that several things may seem to be there. What
counts is what was written last, as far as can be told (decision 21):

1. A whole GPT with the protective MBR that belongs to it.
2. An MBR without one, unless the first sector is also the boot sector of a volume without a table,
   which ends like an MBR: then whichever proves true. A table does if something known begins in
   one of its partitions, a volume if it opens.
3. A whole GPT at the start whose protective MBR is gone, unless something is in the first sector.
4. Whatever is recognised, and last of all a GPT's backup alone.

Within a partition or a logical volume nobody expects a table: there, it must prove true.
"""

from codecs import getincrementaldecoder
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Image
from timefs.guest import signatures
from timefs.guest.ends import HEAD_BYTES, Ends
from timefs.guest.filesystems import Found, recognised
from timefs.guest.partitions import (
    Gpt,
    Mbr,
    Partition,
    gpt_damage,
    kept,
    partition_image,
    read_gpt,
    read_mbr,
)

SECTOR_SIZES: Final = (512, 4096)

SMALLEST_DISK_BYTES: Final = 1 << 20
"""A file that nothing is known of is taken for a disk from this size on."""

NESTED_MAX: Final = 16
"""Partitions of a disk that may hold tables, and partitions of such a table that are shown."""

TEXT_BYTES: Final = 4096
PROVING_MAX: Final = 8
"""Partitions that are asked to prove their table."""

_NO_DISKS: Final = signatures.Signatures(signatures.NO_DISKS)


class Contents(NamedTuple):
    """Either partitions or what was found in their stead, and what may have been there before."""

    partitions: list[Partition] | None
    """None if no table counts."""
    sector_bytes: int
    """In which the table counts, or the one asked for."""
    found: Found | None
    """What the whole of it holds, if no table counts."""
    beneath: list[Found]
    """What else seems to be there."""
    blank: bool
    """Whether its ends are all zeros."""


def contents(
    disk: Image, sector_bytes: int = 512, *, nested: bool = False, table: bool = True
) -> Contents:
    """What a disk of that sector size holds, or a volume within another disk (`nested`).

    Without `table`, none is looked for.
    """
    ends = Ends(disk, whole=not nested)
    found = recognised(ends)
    if not table:
        return Contents(None, sector_bytes, found, [], ends.blank)
    gpt = read_gpt(disk)
    mbr = read_mbr(disk, sector_bytes) if nested else _mbr(disk, sector_bytes)
    counting = _counting(disk, found, gpt, mbr, nested=nested)
    if counting is None:
        beneath = _tables_beneath(gpt, mbr) if found is not None else []
        return Contents(_lost(disk, mbr, found), sector_bytes, found, beneath, ends.blank)
    beneath = [] if found is None or _within(found, counting.partitions) else [found]
    if counting is mbr and gpt is not None:
        beneath.append(_found_table(gpt))
    partitions = kept(counting.partitions, NESTED_MAX) if nested else counting.partitions
    return Contents(partitions, counting.sector_bytes, None, beneath, blank=False)


def partition_contents(volume: Image, partition: Partition, *, table: bool = True) -> Contents:
    """What a partition holds. One that begins where its disk does has the disk's own table."""
    return contents(volume, nested=True, table=table and partition.start > 0)


def is_nestable(partition: Partition) -> bool:
    """Whether a table in a disk's partition is opened: so that disks in disks cost little."""
    return partition.number <= NESTED_MAX


def _mbr(disk: Image, sector_bytes: int) -> Mbr | None:
    """The MBR in sectors of the disk's own size, or of the other if only then it proves true.

    A raw file may be the copy of a disk with larger sectors, which nothing says.
    """
    own = read_mbr(disk, sector_bytes)
    if own is None or own.protective or _proves_true(disk, own):
        return own
    for other_bytes in SECTOR_SIZES:
        if other_bytes != sector_bytes:
            other = read_mbr(disk, other_bytes)
            if other is not None and _proves_true(disk, other):
                return other
    return own


def _counting(
    disk: Image, found: Found | None, gpt: Gpt | None, mbr: Mbr | None, *, nested: bool
) -> Gpt | Mbr | None:
    """The table that counts, if one does."""
    if gpt is not None and mbr is not None and mbr.protective:
        return gpt
    if mbr is not None and not mbr.protective and _counts(disk, found, mbr, nested=nested):
        return mbr
    if gpt is None or (mbr is not None and mbr.plausible):
        return None
    if found is None or (gpt.primary and not found.in_first_sector and not nested):
        return gpt
    return None


def _counts(disk: Image, found: Found | None, mbr: Mbr, *, nested: bool) -> bool:
    """Whether an MBR without a GPT is the disk's table, whatever else was found."""
    if found is None:
        return mbr.plausible or mbr.orderly or _proves_true(disk, mbr)
    if not nested and not found.boots:
        return mbr.plausible
    if _proves_true(disk, mbr):
        return True
    return mbr.plausible and found.open is not None and not found.opens(disk)


def _proves_true(disk: Image, mbr: Mbr) -> bool:
    """Whether something known begins in one of a table's partitions.

    What only ends there may be the end of the disk's own.
    """
    for partition in mbr.partitions[:PROVING_MAX]:
        try:
            volume = partition_image(disk, partition)
        except (CorruptError, UnsupportedError):
            continue
        found = recognised(Ends(volume)) if partition.start else None
        if found is not None and found.place < HEAD_BYTES:
            return True
    return False


def _within(found: Found, partitions: list[Partition]) -> bool:
    """Whether a mark lies in a partition, and so is the partition's and not the disk's."""
    return any(each.start <= found.place < each.start + each.length for each in partitions)


def _tables_beneath(gpt: Gpt | None, mbr: Mbr | None) -> list[Found]:
    found: list[Found] = []
    if mbr is not None and mbr.protective and gpt is None:
        found.append(Found("protective MBR without a whole GPT", 0))
    elif mbr is not None and mbr.plausible:
        found.append(_found_table(mbr))
    return found if gpt is None else [*found, _found_table(gpt)]


def _found_table(table: Gpt | Mbr) -> Found:
    count = len(table.partitions)
    name = "GPT" if isinstance(table, Gpt) else "MBR"
    return Found(f"{name} of {count} partition{'' if count == 1 else 's'}", 0)


def _lost(disk: Image, mbr: Mbr | None, found: Found | None) -> list[Partition] | None:
    """What a protective MBR protects in vain, where nothing else is there to show."""
    if found is not None or mbr is None or not mbr.protective:
        return None
    problem = gpt_damage(disk) or "GPT: the MBR promises one, and there is none at either end"
    return [*mbr.partitions, Partition(0, "GPT", False, 0, 0, problem)]


def is_disk_like(file: Image) -> bool:
    """Whether a file of which nothing is known may be a disk, and not one of the files beside it.

    Whole sectors, no smaller than a floppy disk; no text; no format of other files.
    """
    if file.size < SMALLEST_DISK_BYTES or file.size % SECTOR_SIZES[0]:
        return False
    ends = Ends(file)
    return not _is_text(ends.at(0, TEXT_BYTES)) and _NO_DISKS.found(ends) is None


def _is_text(content: bytes) -> bool:
    """Whether this is the beginning of a text in UTF-8 or UTF-16."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    try:
        text = getincrementaldecoder("utf-8")().decode(content)  # it may end within a character
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character in "\t\n\r\f\x1b" for character in text)
