"""A volume: what `open_volume` answers.

Defined here and only here: `open_volume` and `NtfsVolume`. Used by the detection of guest file
systems. Thread-safe and immutable.
"""

from typing import Final

from store.errors import CorruptError, TimefsError
from store.image import Image
from timefs.guest.ntfs.boot import read_geometries
from timefs.guest.ntfs.index import Indexes
from timefs.guest.ntfs.name import show_name
from timefs.guest.ntfs.node import ROOT_NUMBER, NtfsFolder, Parts
from timefs.guest.ntfs.record import VOLUME_NAME
from timefs.guest.ntfs.table import Table

VOLUME_NUMBER: Final = 3


class NtfsVolume:
    """An open volume."""

    def __init__(self, root: NtfsFolder, label: str) -> None:
        self.root = root
        self.label = label


def open_volume(image: Image, identity: bytes) -> NtfsVolume:
    """The NTFS volume in `image`; its nodes' identities begin with `identity`.

    Raises:
        UnsupportedError: not NTFS.
        CorruptError: NTFS, and damaged beyond opening.
    """
    table = _table(image)
    sequence = table.record(ROOT_NUMBER).sequence
    reference = sequence << 48 | ROOT_NUMBER
    root = NtfsFolder(Parts(identity, table, Indexes(table)), reference, ROOT_NUMBER)
    return NtfsVolume(root, _label(table))


def _table(image: Image) -> Table:
    """The master file table, by the first boot sector that leads to one."""
    refusal: CorruptError | None = None
    for geometry in read_geometries(image):
        try:
            return Table(image, geometry)
        except CorruptError as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _label(table: Table) -> str:
    """The volume's name; empty if it has none or it is damaged."""
    try:
        name = table.file(VOLUME_NUMBER).first(VOLUME_NAME)
    except TimefsError:
        return ""
    units = name.value if name is not None and name.value is not None else b""
    return show_name(units[: len(units) & ~1]).decode("utf-8", "replace")
