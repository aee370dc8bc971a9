"""What the folders, files and links of a volume have in common.

Defined here and only here: `Parts` and `NtfsNode`. Used by `file` and `folder`. Thread-safe and
immutable.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from store.errors import CorruptError
from timefs.guest.ntfs.index import NAMESPACE_DOS, Indexes
from timefs.guest.ntfs.record import FILE_NAME
from timefs.guest.ntfs.table import FileRecord, Table
from timefs.guest.ntfs.xattrs import Origins, Standard, Xattrs
from timefs.tree import Attributes, Node

FOLDER_MODE: Final = 0o040555

REFERENCE_BYTES: Final = 8
"""What a node's identity ends with is its reference."""

EPOCH_TICKS: Final = 116_444_736_000_000_000
"""1970 in ticks of 100 ns since 1601."""


class Parts(NamedTuple):
    """What the nodes of one volume share."""

    identity: bytes
    table: Table
    indexes: Indexes
    origins: Origins
    show_system: bool
    """Whether the file system's own files are shown."""


class NtfsNode(Node):
    """What all nodes have in common."""

    _folder: bool

    def __init__(self, parts: Parts, reference: int) -> None:
        self.parts = parts
        self._reference = reference

    @property
    def identity(self) -> bytes:
        return self.parts.identity + self._reference.to_bytes(REFERENCE_BYTES, "big")

    @property
    def number(self) -> int:
        """The number of the file's first record."""
        return self._reference & 0xFFFFFFFFFFFF

    def file(self) -> FileRecord:
        """The record, which must be of the kind that the folder's entry says.

        Raises:
            CorruptError: it is damaged or another kind.
        """
        file = self.parts.table.file(self._reference)
        if file.record.folder != self._folder:
            kinds = ("folder", "file") if self._folder else ("file", "folder")
            raise CorruptError(f"{file.record.where}: expected a {kinds[0]}, got a {kinds[1]}")
        return file

    def xattrs(self) -> Mapping[bytes, bytes]:
        return Xattrs(self.parts.origins, self.file, self._computed())

    def _computed(self) -> Mapping[bytes, Callable[[], bytes]]:
        """Attributes that the node itself gives."""
        return {}

    def _attributes(
        self, file: FileRecord, standard: Standard, mode: int, size: int, allocated: int
    ) -> Attributes:
        """What `stat` shows, given what differs between the kinds of nodes."""
        created, modified, changed, accessed, flags = standard
        return Attributes(
            mode,
            size,
            allocated,
            1 if self._folder else count_names(file),
            (modified - EPOCH_TICKS) * 100,
            (accessed - EPOCH_TICKS) * 100,
            (changed - EPOCH_TICKS) * 100,
            (created - EPOCH_TICKS) * 100,
            windows_flags=flags,
        ).checked(file.record.where)


def count_names(file: FileRecord) -> int:
    """How many names the file has, at least one; the volume counts 8.3 aliases as well."""
    links = file.record.links
    if links > 1:
        for name in file.pieces(FILE_NAME):
            if name.value is not None and name.value[65:66] == bytes([NAMESPACE_DOS]):
                links -= 1
    return max(1, links)
