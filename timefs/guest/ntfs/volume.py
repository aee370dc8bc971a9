"""A volume: what `open_volume` answers.

Defined here and only here: `open_volume` and `NtfsVolume`. Used by the detection of guest file
systems. Thread-safe and immutable.
"""

from collections.abc import Iterable

from store.errors import CorruptError, TimefsError
from store.image import Image
from timefs.guest.ntfs.boot import read_geometries
from timefs.guest.ntfs.folder import ROOT_NUMBER, NtfsFolder
from timefs.guest.ntfs.index import Indexes
from timefs.guest.ntfs.name import show_name
from timefs.guest.ntfs.node import Parts
from timefs.guest.ntfs.record import VOLUME_NAME
from timefs.guest.ntfs.state import VOLUME_NUMBER
from timefs.guest.ntfs.table import Table
from timefs.guest.ntfs.xattrs import Origins
from timefs.tree import Node


class NtfsVolume:
    """An open volume."""

    def __init__(self, root: NtfsFolder, label: str) -> None:
        self.root = root
        self.label = label

    def find(self, path: Iterable[bytes]) -> Node | None:
        """What Windows means by a path: names in any case by $UpCase, 8.3 aliases too.

        None if there is nothing, or a file or link where a folder would be needed.

        Raises:
            CorruptError: damage on the way, or damage that may hide a name.
        """
        node: Node = self.root
        for name in path:
            found = node.find(name) if isinstance(node, NtfsFolder) else None
            if found is None:
                return None
            node = found.node
        return node


def open_volume(image: Image, identity: bytes, *, show_system: bool = False) -> NtfsVolume:
    """The NTFS volume in `image`; its nodes' identities begin with `identity`.

    `show_system` shows the file system's own files ($MFT and others) in the root.

    Raises:
        UnsupportedError: not NTFS.
        CorruptError: NTFS, and damaged beyond opening.
    """
    table = _table(image)
    sequence = table.record(ROOT_NUMBER).sequence
    reference = sequence << 48 | ROOT_NUMBER
    indexes = Indexes(table)
    parts = Parts(identity, table, indexes, Origins(table, indexes), show_system)
    return NtfsVolume(NtfsFolder(parts, reference), _label(table))


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
