"""The one table of what a volume may hold: how each kind is recognised, and what opens it.

Defined here and only here: `Found`, `recognised` and `Volume`. Used by timefs.guest.contents and
timefs.guest.disktree. Parsers know neither one another nor this table. Stateless.

The order is that of trust. Members of arrays come first, then what is encrypted or a part of a
pool, then file systems: what is made of a member or a pool lies elsewhere, and an older file
system's marks survive beneath. Among file systems those in the first sector come first, because
every mkfs clears it.
"""

import struct
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from store.errors import CorruptError, UnsupportedError
from store.image import Image
from timefs.guest import signatures
from timefs.guest.ends import Ends
from timefs.guest.ext import open_volume as open_ext
from timefs.guest.fat import looks_like_fat, open_exfat, open_fat
from timefs.guest.lvm import label_is_whole, label_place
from timefs.guest.ntfs import open_volume as open_ntfs
from timefs.guest.raid import raid_member, raid_remnant
from timefs.guest.xfs import open_volume as open_xfs
from timefs.tree import Folder

SECTOR_BYTES: Final = 512


class Volume(Protocol):
    """An open volume of any kind."""

    @property
    def root(self) -> Folder:
        """Its root folder."""
        ...

    @property
    def label(self) -> str:
        """Its name, empty if it has none."""
        ...


Opener = Callable[[Image, bytes], Volume]


class Found(NamedTuple):
    """What a volume holds, as far as its marks say."""

    name: str
    place: int
    """Where the mark is that gave it away, in bytes from the start of the volume."""
    open: Opener | None = None
    """What opens it, given the volume and what its nodes' identities begin with."""
    member: bool = False
    """Whether it is a part of an array, of which a single part proves nothing."""

    boots: bool = False
    """Whether it begins with a boot sector, which ends like an MBR without being one."""

    @property
    def in_first_sector(self) -> bool:
        """Whether the next to format the volume would have cleared the mark."""
        return self.place < SECTOR_BYTES

    def opens(self, volume: Image) -> bool:
        """Whether more than its marks are there."""
        if self.open is None:
            return False
        try:
            self.open(volume, b"")
        except (CorruptError, UnsupportedError):
            return False
        return True


Recognise = Callable[[Ends], "Found | None"]


LVM: Final = "LVM2"


def recognised(ends: Ends) -> Found | None:
    """What a volume holds, if it is known; of several file systems the first that opens."""
    first = next((found for look in _LOOKS if (found := look(ends)) is not None), None)
    if first is None or first.open is None:
        return first
    rivals = [found for look in _OPENED if (found := look(ends)) is not None]
    if len(rivals) == 1:
        return first
    return next((found for found in rivals if found.opens(ends.volume)), first)


def _array(ends: Ends) -> Found | None:
    member = raid_member(ends)
    return None if member is None else Found(member.name, member.place, member=True)


def _remnant(ends: Ends) -> Found | None:
    member = raid_remnant(ends)
    return None if member is None else Found(member.name, member.place)


def _lvm(ends: Ends) -> Found | None:
    return _damaged_lvm(ends) if label_is_whole(ends.head) else None


def _damaged_lvm(ends: Ends) -> Found | None:
    place = label_place(ends.head)
    return None if place is None else Found(LVM, place)


def _fat(ends: Ends) -> Found | None:
    holds = looks_like_fat(ends.volume, ends.head[:SECTOR_BYTES])
    return Found("FAT", 0, open_fat, boots=True) if holds else None


def _ext(ends: Ends) -> Found | None:
    """Two bytes say ext; the numbers beside them must be those of a volume."""
    if ends.at(1080, 2) != b"\x53\xef":
        return None
    blocks, block_shift, version = (ends.number(at, 4) for at in (1028, 1048, 1100))
    sane = blocks and block_shift <= 6 and version <= 1
    return Found("ext2/3/4", 1080, open_ext) if sane else None


def _sun(ends: Ends) -> Found | None:
    """Two bytes say Sun; all words of the label together must be even."""
    sector = ends.head[:SECTOR_BYTES]
    if sector[508:510] != b"\xda\xbe" or len(sector) < SECTOR_BYTES:
        return None
    parity = 0
    for (word,) in struct.iter_unpack(">H", sector):
        parity ^= word
    return None if parity else Found("Sun disk label", 508)


def _atari(ends: Ends) -> Found | None:
    """No magic: the disk's size, and partitions within it whose names are letters or digits."""
    sector = ends.head[:SECTOR_BYTES]
    sectors = int.from_bytes(sector[0x1C2:0x1C6], "big")
    if len(sector) < SECTOR_BYTES or not 2 <= sectors <= ends.size // SECTOR_BYTES:
        return None
    for flags, name, start, count in struct.iter_unpack(">B3sII", sector[0x1C6:0x1F6]):
        inside = start > 0 and count > 0 and start + count <= sectors
        if flags & 1 and name.isalnum() and inside:
            return Found("Atari partition table", 0x1C6)
    return None


def _marked(magic: bytes, found: Found) -> Recognise:
    """Of file systems that their magic alone tells."""

    def look(ends: Ends) -> Found | None:
        return found if ends.at(found.place, len(magic)) == magic else None

    return look


def _named(rows: Sequence[signatures.Row], *, boots: bool = False) -> Recognise:
    """Of what is only named."""
    known = signatures.Signatures(rows)

    def look(ends: Ends) -> Found | None:
        row = known.found(ends)
        return None if row is None else Found(*row, boots=boots)

    return look


_OPENED: Final[tuple[Recognise, ...]] = (
    _marked(b"NTFS    ", Found("NTFS", 3, open_ntfs, boots=True)),
    _marked(b"EXFAT   ", Found("exFAT", 3, open_exfat, boots=True)),
    _marked(b"XFSB", Found("XFS", 0, open_xfs)),
    _fat,
    _ext,
)

_LOOKS: Final[tuple[Recognise, ...]] = (
    _array,
    _named(signatures.BOOTING, boots=True),
    _named(signatures.LOCKED),
    _named(signatures.POOLED),
    _lvm,
    *_OPENED,
    _named(signatures.SWAP),
    _named(signatures.NAMED),
    _sun,
    _named(signatures.TABLES),
    _atari,
    _named(signatures.REMNANTS),
    _remnant,
    _damaged_lvm,
)
