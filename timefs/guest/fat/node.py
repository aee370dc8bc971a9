"""Folders and files of a volume, as nodes of a tree.

Defined here and only here: `Format`, `Parts` and the nodes. Used by `volume`. Thread-safe: nodes
are immutable.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from store.errors import CorruptError, NotFoundError
from store.image import BytesImage, Image, MappedImage
from timefs.guest.fat.boot import ENTRY_BYTES, Geometry
from timefs.guest.fat.chain import Chain, Piece, Table, Written, chain_bytes
from timefs.guest.fat.owners import Owners
from timefs.guest.fat.record import ROOT_PLACE, Located, Record, entries_at, entries_of
from timefs.guest.names import reader_of_names
from timefs.tree import Attributes, Entry, Folder, Leaf, Listed, Node, in_parts

STATE_XATTR: Final = b"user.timefs.volume_state"
FILE_MODE: Final = 0o100444
FOLDER_MODE: Final = 0o040555

PLACE_BYTES: Final = 8
"""What a node's identity ends with is where its entry lies."""


class Format(NamedTuple):
    """What FAT and exFAT have different."""

    records: Callable[[Iterator[Located]], Iterator[Record]]
    """Reads a folder's entries."""
    record: Callable[[Iterator[Located]], Record]
    """Reads those of one file alone; the name may be left out."""
    label: Callable[[Iterator[Located]], str]
    """Finds the volume's label in the root's entries."""
    folder_bytes_max: int
    entries_max: int
    """How many entries a file has, from the one that identifies it on."""
    empty_folders: bool
    """Whether a folder may have no cluster at all."""


class Parts:
    """What the nodes of one volume share."""

    def __init__(self, identity: bytes, table: Table, form: Format) -> None:
        self.identity = identity
        self.table = table
        self.form = form
        self.entries = partial(_folder_entries, table, form, Owners())
        """A folder's entries."""
        self.names = reader_of_names(partial(_records, form, self.entries))
        """A folder's names, None if they are too many to keep."""

    def records(self, folder: Record) -> Iterator[Record]:
        """A folder's names as they come."""
        return _records(self.form, self.entries, folder)

    @property
    def state(self) -> bytes:
        """Whether the volume was put away, as `user.timefs.volume_state` says it."""
        clean = not self.table.geometry.in_use and self.table.clean()
        return b"clean" if clean else b"no journal, and it was not unmounted"


def _records(
    form: Format, entries: Callable[[Record], Iterator[Located]], folder: Record
) -> Iterator[Record]:
    return form.records(entries(folder))


def _folder_entries(
    table: Table, form: Format, owners: Owners, folder: Record
) -> Iterator[Located]:
    content = _folder_content(table, form, folder)
    owners.take(content, folder)
    yield from entries_of(content)


def _folder_content(table: Table, form: Format, folder: Record) -> MappedImage:
    """Where a folder's entries are."""
    geometry, where = table.geometry, folder.where
    if folder.place == ROOT_PLACE:
        if geometry.width < 32:
            return Piece(table.volume, geometry.root, geometry.root_bytes)
    elif form.empty_folders and folder.cluster == 0 and folder.size == 0:
        return Piece(table.volume, geometry.heap, 0)
    if folder.size > form.folder_bytes_max:
        raise CorruptError(
            f"{where}: expected at most {form.folder_bytes_max} bytes, got {folder.size}"
        )
    if folder.together:
        return _piece(table, folder)
    size = folder.size or chain_bytes(table, folder.cluster, form.folder_bytes_max, where)
    return Chain(table, folder.cluster, size, where)


def _piece(table: Table, record: Record) -> Piece:
    """Content that lies in one piece."""
    geometry = table.geometry
    last = record.cluster + (record.size - 1) // geometry.cluster_bytes
    for cluster in (record.cluster, last):
        table.checked(cluster, record.where)
    return Piece(table.volume, geometry.place(record.cluster), record.size)


def _file_content(table: Table, record: Record) -> Image:
    if record.size == 0:
        return BytesImage(b"")
    _check_size(table.geometry, record)
    content = (
        _piece(table, record)
        if record.together
        else Chain(table, record.cluster, record.size, record.where)
    )
    if record.written_bytes < record.size:
        return Written(content, record.written_bytes)
    return content


def _check_size(geometry: Geometry, record: Record) -> None:
    if record.size > geometry.content_bytes:
        raise CorruptError(
            f"{record.where}: expected at most {geometry.content_bytes} bytes, as many as the "
            f"volume has, got {record.size}"
        )


class FatNode(Node):
    """What folders and files have in common."""

    _mode: int

    def __init__(self, parts: Parts, record: Record) -> None:
        self._parts = parts
        self._record = record

    @property
    def identity(self) -> bytes:
        return self._parts.identity + self._record.place.to_bytes(PLACE_BYTES, "big")

    def attributes(self) -> Attributes:
        record, geometry = self._record, self._parts.table.geometry
        size, step = 0 if record.folder else record.size, geometry.cluster_bytes
        if size:
            _check_size(geometry, record)
        return Attributes(
            mode=self._mode,
            size=size,
            allocated_bytes=-(-size // step) * step,
            links=1,
            mtime_ns=record.mtime_ns,
            atime_ns=record.atime_ns,
            ctime_ns=record.mtime_ns,
            created_ns=record.created_ns,
        )


class FatFile(FatNode, Leaf):
    """A file."""

    _mode = FILE_MODE

    def open(self) -> Image:
        return _file_content(self._parts.table, self._record)


class FatFolder(FatNode, Folder):
    """A folder. Whatever else leads to its clusters is refused, so no walk goes in circles."""

    _mode = FOLDER_MODE

    def lookup(self, name: bytes) -> Node:
        names = self._parts.names(self._record)
        if names is not None:
            found = names.find(name)
        else:
            records = self._parts.records(self._record)
            found = next((record for record in records if record.name == name), None)
        if found is None:
            raise NotFoundError(f"{name.decode(errors='replace')}: no such name")
        return self._node(found)

    def entries(self) -> Iterator[Entry]:
        for record in self._parts.records(self._record):
            yield Entry(record.name, self._node(record))

    def entries_with_attributes(self) -> Iterator[Sequence[Listed]]:
        for part in in_parts(self._parts.records(self._record)):
            yield [self._listed(record) for record in part]

    def leaf_again(self, identity: bytes) -> Node | None:
        own, place = identity[:-PLACE_BYTES], int.from_bytes(identity[-PLACE_BYTES:], "big")
        if own != self._parts.identity:
            return None
        entries = self._entries_from(place, self._parts.form.entries_max * ENTRY_BYTES)
        with suppress(CorruptError):
            return FatFile(self._parts, self._parts.form.record(entries))
        return None

    def xattrs(self) -> Mapping[bytes, bytes]:
        is_root = self._record.place == ROOT_PLACE
        return {STATE_XATTR: self._parts.state} if is_root else {}

    def _entries_from(self, place: int, length: int) -> Iterator[Located]:
        """The folder's entries from a place on, in the next cluster where one ends before."""
        table, geometry = self._parts.table, self._parts.table.geometry
        while True:
            here = min(length, geometry.room(place))
            yield from entries_at(table.volume, place, here)
            length -= here
            if length == 0:
                return
            cluster = geometry.cluster(place)
            following: int | None = cluster + 1
            if not self._record.together:
                following = table.following(cluster, self._record.where)
            if following is None:
                return
            place = geometry.place(following)

    def _listed(self, record: Record) -> Listed:
        """Of a file that cannot be as large as it says the node itself says so."""
        node = self._node(record)
        sound = record.folder or record.size <= self._parts.table.geometry.content_bytes
        return record.name, node, node.attributes() if sound else None

    def _node(self, record: Record) -> Node:
        return (FatFolder if record.folder else FatFile)(self._parts, record)
