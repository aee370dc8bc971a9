"""A volume: what `open_fat` and `open_exfat` answer.

Defined here and only here: these two and `FatVolume`. Used by the table of file systems.
Thread-safe and immutable.
"""

from functools import partial
from typing import Final

from store.image import Image
from timefs.guest.fat.boot import read_exfat, read_fat
from timefs.guest.fat.chain import Table
from timefs.guest.fat.exfat_folder import (
    SECONDARIES_MAX,
    exfat_label,
    exfat_record,
    exfat_records,
)
from timefs.guest.fat.fat_folder import fat_label, fat_record, fat_records
from timefs.guest.fat.node import FatFolder, Format, Parts
from timefs.guest.fat.record import ROOT_PLACE, Record

FAT_FOLDER_BYTES_MAX: Final = 2 << 20
EXFAT_FOLDER_BYTES_MAX: Final = 256 << 20


class FatVolume:
    """An open volume."""

    def __init__(self, root: FatFolder, label: str) -> None:
        self.root = root
        self.label = label


def open_fat(image: Image, identity: bytes) -> FatVolume:
    """The FAT volume in `image`; its nodes' identities begin with `identity`.

    Raises:
        UnsupportedError: not FAT.
        CorruptError: damaged beyond opening.
    """
    geometry = read_fat(image)
    records = partial(fat_records, wide=geometry.width == 32)
    record = partial(fat_record, wide=geometry.width == 32)
    form = Format(
        records, record, fat_label, FAT_FOLDER_BYTES_MAX, entries_max=1, empty_folders=False
    )
    return _volume(Parts(identity, Table(image, geometry), form))


def open_exfat(image: Image, identity: bytes) -> FatVolume:
    """The exFAT volume in `image`; its nodes' identities begin with `identity`.

    Raises:
        UnsupportedError: not exFAT.
        CorruptError: damaged beyond opening.
    """
    form = Format(
        exfat_records,
        exfat_record,
        exfat_label,
        EXFAT_FOLDER_BYTES_MAX,
        entries_max=1 + SECONDARIES_MAX,
        empty_folders=True,
    )
    return _volume(Parts(identity, Table(image, read_exfat(image)), form))


def _volume(parts: Parts) -> FatVolume:
    geometry = parts.table.geometry
    root = Record(
        name=b"",
        place=ROOT_PLACE,
        folder=True,
        size=0,
        written_bytes=0,
        cluster=geometry.root_cluster,
        together=False,
        created_ns=0,
        mtime_ns=0,
        atime_ns=0,
    )
    label = parts.form.label(parts.entries(root))
    return FatVolume(FatFolder(parts, root), label or geometry.label)
