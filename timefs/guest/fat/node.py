"""Folders and files of a volume, as nodes of a tree.

Defined here and only here: `Format`, `Parts` and the nodes. Used by `volume`. Thread-safe and
immutable.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, NamedTuple

from store.errors import CorruptError, NotFoundError
from store.image import BytesImage, Image
from timefs.guest.fat.chain import Chain, Piece, Table, Written, chain_bytes
from timefs.guest.fat.record import Located, Record, entries_of
from timefs.guest.names import reader_of_names
from timefs.tree import Attributes, Entry, Folder, Leaf, Node

STATE_XATTR: Final = b"user.timefs.volume_state"
FILE_MODE: Final = 0o100444
FOLDER_MODE: Final = 0o040555


class Format(NamedTuple):
    """What FAT and exFAT have different."""

    records: Callable[[Iterator[Located]], Iterator[Record]]
    """Reads a folder's entries."""
    label: Callable[[Iterator[Located]], str]
    """Finds the volume's label in the root's entries."""
    folder_bytes_max: int


class Parts:
    """What the nodes of one volume share."""

    def __init__(self, identity: bytes, table: Table, form: Format) -> None:
        self.identity = identity
        self.table = table
        self.form = form
        self.names = reader_of_names(partial(_records, table, form))
        """A folder's names, None if they are too many to keep."""

    @property
    def state(self) -> bytes:
        """Whether the volume was put away, as `user.timefs.volume_state` says it."""
        clean = not self.table.geometry.in_use and self.table.clean()
        return b"clean" if clean else b"no journal, and it was not unmounted"


def _records(table: Table, form: Format, folder: Record) -> Iterator[Record]:
    return form.records(folder_entries(table, form, folder))


def folder_entries(table: Table, form: Format, record: Record) -> Iterator[Located]:
    """The entries of a folder."""
    geometry, cluster = table.geometry, record.cluster
    if cluster == 0:  # the root where it has a place of its own
        content: Image = Piece(table.volume, geometry.root, geometry.root_bytes)
    elif record.together or record.size:
        content = _content(table, record)
    else:
        size = chain_bytes(table, cluster, form.folder_bytes_max, record.where)
        content = Chain(table, cluster, size, record.where)
    return entries_of(content, cluster)


def _content(table: Table, record: Record) -> Image:
    if record.size == 0:
        return BytesImage(b"")
    if not record.together:
        content: Image = Chain(table, record.cluster, record.size, record.where)
    else:
        step = table.geometry.cluster_bytes
        table.checked(record.cluster, record.where)
        table.checked(record.cluster + (record.size - 1) // step, record.where)
        content = Piece(table.volume, table.geometry.place(record.cluster), record.size)
    if record.written_bytes < record.size:
        return Written(content, record.written_bytes)
    return content


class FatNode(Node):
    """What folders and files have in common."""

    _mode: int

    def __init__(self, parts: Parts, record: Record) -> None:
        self._parts = parts
        self._record = record

    @property
    def identity(self) -> bytes:
        return self._parts.identity + self._record.place.to_bytes(8, "big")

    def attributes(self) -> Attributes:
        record, step = self._record, self._parts.table.geometry.cluster_bytes
        size = 0 if record.folder else record.size
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
        return _content(self._parts.table, self._record)


class FatFolder(FatNode, Folder):
    """A folder. One that lies within itself is not entered."""

    _mode = FOLDER_MODE

    def __init__(self, parts: Parts, record: Record, above: frozenset[int]) -> None:
        """`above` are the first clusters of the folders on the way here."""
        super().__init__(parts, record)
        self._above = above

    def lookup(self, name: bytes) -> Node:
        self._check()
        names = self._parts.names(self._record)
        if names is not None:
            found = names.find(name)
        else:
            records = _records(self._parts.table, self._parts.form, self._record)
            found = next((record for record in records if record.name == name), None)
        if found is None:
            raise NotFoundError(f"{name.decode(errors='replace')}: no such name")
        return self._node(found)

    def entries(self) -> Iterator[Entry]:
        self._check()
        for record in _records(self._parts.table, self._parts.form, self._record):
            yield Entry(record.name, self._node(record))

    def xattrs(self) -> Mapping[bytes, bytes]:
        return {} if self._above else {STATE_XATTR: self._parts.state}

    def _check(self) -> None:
        if self._record.cluster in self._above:
            raise CorruptError(f"{self._record.where}: a folder that lies within itself")

    def _node(self, record: Record) -> Node:
        if record.folder:
            return FatFolder(self._parts, record, self._above | {self._record.cluster})
        return FatFile(self._parts, record)
