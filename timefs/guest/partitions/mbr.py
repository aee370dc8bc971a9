"""The MBR: four entries, and the chain of records of logical partitions.

Defined here and only here: `Mbr` and `read_mbr`. Used through timefs.guest.partitions. Pure
functions.

Source: UEFI Specification 2.10, 5.2 (MBR, protective MBR); Linux, block/partitions/msdos.c (what a
chain of extended records may look like).
"""

import struct
from typing import Final, NamedTuple

from store.budget import spend
from store.image import Image
from timefs.guest.partitions.partition import DYNAMIC, PARTITIONS_MAX, Partition, kept

ENTRY: Final = struct.Struct("<B3sB3sII")
TABLE_AT: Final = 446
SIGNATURE: Final = b"\x55\xaa"
SECTOR_BYTES: Final = 512
EXTENDED: Final = {0x05, 0x0F, 0x85}
PROTECTIVE: Final = 0xEE
FIRST_LOGICAL: Final = 5
RECORDS_MAX: Final = 2 * PARTITIONS_MAX
"""Of a chain; some of them may hold no partition."""

BESIDE: Final = {0x27, 0xEF, 0x82}
"""Recovery, EFI system, swap."""

NOT_PLAIN: Final = {0x42: DYNAMIC}
"""Partitions whose bytes are no volume, even where one seems to begin."""


class Entry(NamedTuple):
    """One of a sector's four entries, in sectors."""

    number: int
    """From 1."""
    flags: int
    kind: int
    start: int
    length: int

    @property
    def used(self) -> bool:
        """Whether it stands for anything."""
        return bool(self.kind and self.length)

    @property
    def extended(self) -> bool:
        """Whether logical partitions are in it."""
        return self.used and self.kind in EXTENDED


class Mbr(NamedTuple):
    """What the first sector says, if it says anything."""

    partitions: list[Partition]
    sector_bytes: int
    """In which its entries count."""
    protective: bool
    """Whether it says that a GPT counts instead."""
    plausible: bool
    """Whether it may be a table at all: a partition begins within the disk, and no entry has flags
    that no table has. Code and text at the end of a boot sector rarely look like that."""
    orderly: bool
    """Whether every entry is one that a table may have, or all zeros: a table, wherever its
    partitions lie, if nothing else is known of the disk."""


def read_mbr(disk: Image, sector_bytes: int = SECTOR_BYTES) -> Mbr | None:
    """The table in the first sector; None if no entry of it is used."""
    entries = _entries(disk, 0)
    if entries is None or not any(entry.used for entry in entries):
        return None
    found: list[Partition] = []
    logical: list[Partition] = []
    sound = False
    for entry in entries:
        inside = 0 < entry.start * sector_bytes < disk.size
        sound |= entry.used and inside and entry.kind != PROTECTIVE
        if entry.extended and inside:
            number = FIRST_LOGICAL + len(logical)
            logical += _Chain(disk, entry.start, sector_bytes).partitions(number)
        elif entry.used and entry.kind != PROTECTIVE:
            found.append(_partition(entry.number, entry, 0, sector_bytes))
    protective = any(entry.kind == PROTECTIVE for entry in entries)
    flags = all(entry.flags in (0x00, 0x80) for entry in entries)
    orderly = flags and all(_orderly(entry) for entry in entries)
    return Mbr(kept(found + logical), sector_bytes, protective, sound and flags, orderly)


def _orderly(entry: Entry) -> bool:
    empty = not entry.flags and not entry.kind and not entry.start and not entry.length
    return empty or (entry.used and entry.start > 0)


def _entries(disk: Image, at: int) -> list[Entry] | None:
    """The four entries of the sector at an offset; None if it does not end as such sectors do."""
    sector = disk.read(at, SECTOR_BYTES)
    if sector[510:512] != SIGNATURE:
        return None
    found: list[Entry] = []
    for number in range(4):
        flags, _, kind, _, first, count = ENTRY.unpack_from(sector, TABLE_AT + number * ENTRY.size)
        found.append(Entry(number + 1, flags, kind, first, count))
    return found


def _partition(number: int, entry: Entry, origin: int, sector_bytes: int) -> Partition:
    """The partition of an entry that counts from a sector `origin`."""
    start, length = (origin + entry.start) * sector_bytes, entry.length * sector_bytes
    problem = NOT_PLAIN.get(entry.kind, "")
    return Partition(number, "", entry.kind in BESIDE, start, length, problem)


class _Chain:
    """The records of an extended partition, each with a partition or a link or both.

    Which entry of a record is which says its type alone. A record's partition counts from the
    record, the next record from the extended partition.
    """

    def __init__(self, disk: Image, extended: int, sector_bytes: int) -> None:
        self._disk = disk
        self._extended = extended
        self._sector_bytes = sector_bytes

    def partitions(self, number: int) -> list[Partition]:
        """Those of the chain; what ends it too early is the last one's problem."""
        found: list[Partition] = []
        at: int | None = self._extended
        seen: set[int] = set()
        while at is not None:
            spend(SECTOR_BYTES)
            entries = _entries(self._disk, at * self._sector_bytes)
            if entries is None or at in seen or len(seen) == RECORDS_MAX:
                problem = (
                    f"extended partition: no link of its chain at sector {at}; others may be lost"
                )
                return [*found, Partition(number + len(found), "", False, 0, 0, problem)]
            seen.add(at)
            for entry in entries:
                if entry.used and not entry.extended:
                    logical = number + len(found)
                    found.append(_partition(logical, entry, at, self._sector_bytes))
            links = [entry.start for entry in entries if entry.extended and entry.start]
            at = self._extended + links[0] if links else None
        return found
