"""Folders and files of a volume, as nodes of a tree.

Defined here and only here: `Parts` and the nodes. Used by `volume`. Thread-safe and immutable.

A reparse point's target is not followed in this version: symbolic links and junctions are files
whose reading raises `UnsupportedError`.
"""

import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from store.errors import CorruptError, NotFoundError, UnsupportedError
from store.image import Image
from timefs.guest.ntfs.index import NAMESPACE_DOS, Index, IndexEntry, Indexes
from timefs.guest.ntfs.name import escaped, find_name, show_name
from timefs.guest.ntfs.record import (
    DATA,
    FILE_NAME,
    NUMBER_MASK,
    REPARSE_POINT,
    STANDARD_INFORMATION,
)
from timefs.guest.ntfs.table import FileRecord, Table
from timefs.tree import Attributes, Entry, Folder, Leaf, Node

ROOT_NUMBER: Final = 5
USER_NUMBER_MIN: Final = 24
"""Records below belong to the file system itself: its $-files, which the root does not show."""

FILE_MODE: Final = 0o100444
FOLDER_MODE: Final = 0o040555
FLAG_REPARSE: Final = 0x400
FLAG_FOLDER: Final = 0x10000000
ATTRIB_FOLDER: Final = 0x10
"""What readers expect in a folder's attributes; the volume does not store it."""

EPOCH_TICKS: Final = 116_444_736_000_000_000
"""1970 in ticks of 100 ns since 1601."""

XATTR_BYTES_MAX: Final = 64 << 10

_STANDARD: Final = struct.Struct("<qqqqI")
_TAG: Final = struct.Struct("<I")
_TAGS: Final = {
    0xA0000003: "a junction: not resolved by this version",
    0xA000000C: "a symbolic link: not resolved by this version",
    0x80000013: "deduplicated by Windows: not decoded by this version",
    0x80000017: "system-compressed (WOF): not decoded by this version",
}
_LINK_TAGS: Final = (0xA0000003, 0xA000000C)


class Parts(NamedTuple):
    """What the nodes of one volume share."""

    identity: bytes
    table: Table
    indexes: Indexes


class NtfsNode(Node):
    """What folders and files have in common."""

    _folder: bool

    def __init__(self, parts: Parts, reference: int) -> None:
        self._parts = parts
        self._reference = reference

    @property
    def identity(self) -> bytes:
        return self._parts.identity + self._reference.to_bytes(8, "big")

    def _file(self) -> FileRecord:
        """The record, which must be of the kind that the folder's entry says.

        Raises:
            CorruptError: it is damaged or another kind.
        """
        file = self._parts.table.file(self._reference)
        if file.record.folder != self._folder:
            kinds = ("folder", "file") if self._folder else ("file", "folder")
            raise CorruptError(f"{file.record.where}: expected a {kinds[0]}, got a {kinds[1]}")
        return file

    def xattrs(self) -> Mapping[bytes, bytes]:
        file = self._file()
        created, modified, changed, accessed, flags = _standard(file)
        flags |= ATTRIB_FOLDER if self._folder else 0
        known = {
            b"system.ntfs_attrib": flags.to_bytes(4, "little"),
            b"system.ntfs_times": struct.pack("<qqqq", created, modified, accessed, changed),
        }
        return Xattrs(file, known)


class Xattrs(Mapping[bytes, bytes]):
    """Extended attributes: known values, and alternate streams that are read when asked for."""

    def __init__(self, file: FileRecord, known: dict[bytes, bytes]) -> None:
        self._file = file
        self._known = known
        self._streams: dict[bytes, bytes] = {}
        for name in file.names(DATA):
            first = file.first(DATA, name) if name else None
            if first is not None and first.size <= XATTR_BYTES_MAX:
                self._streams[b"user." + show_name(name)] = name

    def __getitem__(self, name: bytes) -> bytes:
        if name in self._known:
            return self._known[name]
        stream = self._file.open(DATA, self._streams[name])
        return stream.read(0, stream.size)

    def __iter__(self) -> Iterator[bytes]:
        yield from self._known
        yield from self._streams

    def __len__(self) -> int:
        return len(self._known) + len(self._streams)


class NtfsFile(NtfsNode, Leaf):
    """A file."""

    _folder = False

    def attributes(self) -> Attributes:
        file = self._file()
        data = file.first(DATA)
        if data is None and _tag(file) is None:
            raise CorruptError(f"{file.record.where}: expected data, found none")
        size, allocated = (data.size, data.allocated_bytes) if data else (0, 0)
        geometry = self._parts.table.geometry
        if allocated > geometry.clusters * geometry.cluster_bytes:
            raise CorruptError(
                f"{file.record.where}: {allocated} bytes allocated, beyond the volume"
            )
        return _attributes(file, FILE_MODE, size, allocated)

    def open(self) -> Image:
        file = self._file()
        _refuse_reparse(file)
        return file.open(DATA)


class NtfsPointer(NtfsNode, Leaf):
    """A folder that is a link to elsewhere: an entry whose reading is not supported."""

    _folder = True

    def attributes(self) -> Attributes:
        return _attributes(self._file(), FILE_MODE, 0, 0)

    def open(self) -> Image:
        file = self._file()
        _refuse_reparse(file)
        raise CorruptError(f"{file.record.where}: expected a reparse point, found none")


class NtfsFolder(NtfsNode, Folder):
    """A folder. It is served only through its one parent, so no cycle can be walked."""

    _folder = True

    def __init__(self, parts: Parts, reference: int, parent: int) -> None:
        """`parent` is the record number of the folder that holds it."""
        super().__init__(parts, reference)
        self._parent = parent

    def attributes(self) -> Attributes:
        return _attributes(self._file(), FOLDER_MODE, 0, 0)

    def lookup(self, name: bytes) -> Node:
        units = find_name(name)
        index = self._index()
        found = index.find(units) if units is not None else None
        if found is not None and self._shown(found) and show_name(found.name) == name:
            return self._node(found)
        if escaped(name):
            for entry in index.entries():
                if show_name(entry.name) == name and self._shown(entry):
                    return self._node(entry)
        raise NotFoundError("no such file or folder")

    def entries(self) -> Iterator[Entry]:
        for entry in self._index().entries():
            if self._shown(entry):
                yield Entry(show_name(entry.name), self._node(entry))

    def _index(self) -> Index:
        file = self._file()
        if _tag(file) in _LINK_TAGS:
            _refuse_reparse(file)
        for name in file.pieces(FILE_NAME):
            parent = int.from_bytes((name.value or b"")[:6], "little")
            if parent != self._parent:
                raise CorruptError(
                    f"{file.record.where}: expected its parent {self._parent}, got {parent}"
                )
        return self._parts.indexes.of(self._reference)

    def _shown(self, entry: IndexEntry) -> bool:
        own = self._reference & NUMBER_MASK == ROOT_NUMBER
        return not (own and entry.reference & NUMBER_MASK < USER_NUMBER_MIN)

    def _node(self, entry: IndexEntry) -> Node:
        if not entry.flags & FLAG_FOLDER:
            return NtfsFile(self._parts, entry.reference)
        if entry.flags & FLAG_REPARSE and entry.tag in _LINK_TAGS:
            return NtfsPointer(self._parts, entry.reference)
        return NtfsFolder(self._parts, entry.reference, self._reference & NUMBER_MASK)


def _standard(file: FileRecord) -> tuple[int, int, int, int, int]:
    """Created, modified, changed and accessed in ticks, and the flags."""
    standard = file.first(STANDARD_INFORMATION)
    if standard is None or standard.value is None or standard.size < _STANDARD.size:
        raise CorruptError(f"{file.record.where}: expected standard information, found none")
    created, modified, changed, accessed, flags = _STANDARD.unpack_from(standard.value)
    return created, modified, changed, accessed, flags


def _attributes(file: FileRecord, mode: int, size: int, allocated: int) -> Attributes:
    created, modified, changed, accessed, _ = _standard(file)
    return Attributes(
        mode,
        size,
        allocated,
        1 if mode == FOLDER_MODE else _links(file),
        (modified - EPOCH_TICKS) * 100,
        (accessed - EPOCH_TICKS) * 100,
        (changed - EPOCH_TICKS) * 100,
        (created - EPOCH_TICKS) * 100,
    )


def _links(file: FileRecord) -> int:
    """How many names the file has; the volume counts 8.3 aliases as well."""
    links = file.record.links
    if links > 1:
        for name in file.pieces(FILE_NAME):
            if name.value is not None and name.value[65:66] == bytes([NAMESPACE_DOS]):
                links -= 1
    return links


def _tag(file: FileRecord) -> int | None:
    """The tag of the file's reparse point, None if it has none."""
    if file.first(REPARSE_POINT) is None:
        return None
    value = file.open(REPARSE_POINT).read(0, _TAG.size)
    if len(value) < _TAG.size:
        raise CorruptError(f"{file.record.where}: expected a reparse tag, got {value!r}")
    return int(_TAG.unpack(value)[0])


def _refuse_reparse(file: FileRecord) -> None:
    """Raises UnsupportedError if something other than the file's data is to be read."""
    tag = _tag(file)
    if tag is not None:
        reason = _TAGS.get(tag, "a reparse point of a kind that this version does not know")
        raise UnsupportedError(f"{file.record.where}: {reason} (tag {tag:#x})")
