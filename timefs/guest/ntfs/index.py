"""Folder indexes: the B-tree of names in $I30.

Defined here and only here: `IndexEntry`, `Index` and `Indexes`. Used by `node`. Thread-safe: what
is held is immutable or a bounded cache.

The tree itself says which blocks are in use; the bitmap beside it is not consulted, since in a
volume captured while it was written the two may differ. A name not found is reported absent only
when the whole index has been proven to be in order; else every entry is looked at.
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from store.errors import CorruptError
from store.image import Image, read_exactly
from timefs.guest.ntfs.name import Collation
from timefs.guest.ntfs.record import (
    DATA,
    INDEX_ALLOCATION,
    INDEX_ROOT,
    NUMBER_MASK,
    STRIDE_BYTES,
    mend,
)
from timefs.guest.ntfs.table import FileRecord, Table

I30: Final = "$I30".encode("utf-16-le")
INDEXES_MAX: Final = 128
NODES_MAX: Final = 256
"""Open indexes and parsed blocks that a volume keeps."""

BLOCK_BYTES_MAX: Final = 64 << 10
NAMESPACE_DOS: Final = 2
"""The 8.3 alias of a name that is there as well."""

UPCASE_NUMBER: Final = 10
UPCASE_BYTES: Final = 128 << 10

HAS_CHILD: Final = 1
LAST: Final = 2
NO_CHILD: Final = -1

_ROOT: Final = struct.Struct("<III")
_HEADER: Final = struct.Struct("<IIIB")
_ENTRY: Final = struct.Struct("<QHHH")
_FILE_NAME: Final = struct.Struct("<Q48xIIBB")
_CLUSTER: Final = struct.Struct("<q")


class IndexEntry(NamedTuple):
    """One name. `flags` and `tag` are the folder's copy of the file's flags and reparse tag."""

    reference: int
    name: bytes
    """UTF-16LE."""
    namespace: int
    parent: int
    flags: int
    tag: int


class IndexNode:
    """One block of the tree: n entries in order and, between and around them, n + 1 children."""

    def __init__(self, entries: list[IndexEntry], children: list[int]) -> None:
        self.entries = entries
        self.children = children
        self._keys: list[bytes] | None = None

    def keys(self, collation: Collation) -> list[bytes]:
        """What orders the entries."""
        if self._keys is None:
            self._keys = collation.keys([entry.name for entry in self.entries])
        return self._keys


class Indexes:
    """The indexes of a volume's folders."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.node = lru_cache(NODES_MAX)(_read_node)
        self.of = lru_cache(INDEXES_MAX)(self._open)
        """The index of the folder of a reference."""

    @cached_property
    def collation(self) -> Collation:
        """The volume's order of names; if $UpCase is damaged, a poor one: slow, not wrong."""
        try:
            image = self._table.file(UPCASE_NUMBER).open(DATA)
        except CorruptError:
            return Collation(b"")
        return Collation(image.read(0, UPCASE_BYTES))

    def _open(self, reference: int) -> "Index":
        return Index(self, self._table.file(reference), self._table.geometry.cluster_bytes)


class Index:
    """One folder's names."""

    def __init__(self, indexes: Indexes, file: FileRecord, cluster_bytes: int) -> None:
        """Raises CorruptError if the root of the tree is damaged."""
        self.where = f"{file.record.where}: folder index"
        self.number = file.record.number
        self._indexes = indexes
        root = file.first(INDEX_ROOT, I30)
        if root is None or root.value is None or len(root.value) < 32:
            raise CorruptError(f"{self.where}: expected a resident root, found none")
        kind, _, block_bytes = _ROOT.unpack_from(root.value)
        powers = block_bytes & (block_bytes - 1) == 0
        if kind != 0x30 or not (powers and STRIDE_BYTES <= block_bytes <= BLOCK_BYTES_MAX):
            raise CorruptError(f"{self.where}: absurd blocks of {block_bytes} bytes")
        self.block_bytes = block_bytes
        # Blocks smaller than a cluster are counted in pieces of 512 bytes.
        self.unit_bytes = cluster_bytes if cluster_bytes <= block_bytes else STRIDE_BYTES
        self._root = parse_node(root.value, 16, self)
        self._file = file

    @cached_property
    def blocks(self) -> Image:
        """Where all nodes but the root are."""
        return self._file.open(INDEX_ALLOCATION, I30)

    def entries(self) -> Iterator[IndexEntry]:
        """Every name but the 8.3 aliases.

        Raises:
            CorruptError: on reaching a block that is damaged or that was met before.
        """
        for node, _, _ in self._walk():
            for entry in node.entries:
                if entry.namespace != NAMESPACE_DOS:
                    yield entry

    def find(self, name: bytes) -> IndexEntry | None:
        """The entry of a name (UTF-16LE), None if there surely is none.

        Raises:
            CorruptError: damage on the way, or damage that may hide the name.
        """
        if self._root.children != [NO_CHILD] * len(self._root.children):
            found = self._descend(name)
            if found is not None or self.in_order:
                return found
        return next((entry for entry in self.entries() if entry.name == name), None)

    @cached_property
    def in_order(self) -> bool:
        """Whether every name is where the search for it would look."""
        for node, low, high in self._walk():
            keys = node.keys(self._indexes.collation)
            if any(first > second for first, second in pairwise(keys)):
                return False
            if keys and ((low is not None and keys[0] < low)
                         or (high is not None and keys[-1] > high)):  # fmt: skip
                return False
        return True

    def _node(self, cluster: int) -> IndexNode:
        return self._indexes.node(self, cluster)

    def _walk(self) -> Iterator[tuple[IndexNode, bytes | None, bytes | None]]:
        """Every node, with the keys that its own must lie between."""
        met: set[int] = set()
        nodes: list[tuple[int, bytes | None, bytes | None]] = []
        node, low, high = self._root, None, None
        while True:
            yield node, low, high
            if any(child != NO_CHILD for child in node.children):
                keys = [low, *node.keys(self._indexes.collation), high]
                bounds = zip(node.children, keys, keys[1:], strict=False)
                nodes += [bound for bound in bounds if bound[0] != NO_CHILD]
            if not nodes:
                return
            cluster, low, high = nodes.pop()
            self._meet(cluster, met)
            node = self._node(cluster)

    def _descend(self, name: bytes) -> IndexEntry | None:
        """Search as the tree is ordered; names that differ in case only may lie side by side."""
        key = self._indexes.collation.keys([name])[0]
        met: set[int] = set()
        nodes = [self._root]
        clusters: list[int] = []
        while nodes:
            node = nodes.pop()
            keys = node.keys(self._indexes.collation)
            first, last = bisect_left(keys, key), bisect_right(keys, key)
            for entry in node.entries[first:last]:
                if entry.name == name and entry.namespace != NAMESPACE_DOS:
                    return entry
            clusters += [one for one in node.children[first : last + 1] if one != NO_CHILD]
            if clusters:
                cluster = clusters.pop()
                self._meet(cluster, met)
                nodes.append(self._node(cluster))
        return None

    def _meet(self, cluster: int, met: set[int]) -> None:
        if cluster in met:
            raise CorruptError(f"{self.where}: its block {cluster} is reached twice")
        met.add(cluster)


def _read_node(index: Index, cluster: int) -> IndexNode:
    where = f"{index.where}: block {cluster}"
    place = cluster * index.unit_bytes
    data = bytearray(read_exactly(index.blocks, place, index.block_bytes, where))
    mend(data, b"INDX", where)
    own = _CLUSTER.unpack_from(data, 16)[0]
    if own != cluster:
        raise CorruptError(f"{where}: it says it is block {own}")
    return parse_node(bytes(data), 24, index)


def parse_node(data: bytes, header: int, index: Index) -> IndexNode:
    """The entries of a node whose index header is at `header`.

    Source: NTFS documentation of the Linux-NTFS project, "Index Header" and "Index Entry".

    Raises:
        CorruptError: entries out of bounds, of another folder or without an end.
    """
    start, used, _, _ = _HEADER.unpack_from(data, header)
    at, end = header + start, header + used
    entries: list[IndexEntry] = []
    children: list[int] = []
    while _ENTRY.size + 2 <= end - at and end <= len(data):
        reference, length, key_bytes, flags = _ENTRY.unpack_from(data, at)
        fixed = 24 if flags & HAS_CHILD else 16
        if length % 8 or length < fixed or at + length > end:
            break
        child = _CLUSTER.unpack_from(data, at + length - 8)[0] if flags & HAS_CHILD else NO_CHILD
        if flags & HAS_CHILD and child < 0:
            break
        children.append(child)
        if flags & LAST:
            return IndexNode(entries, children)
        if fixed + key_bytes > length:
            break
        entries.append(_entry(data[at + 16 : at + 16 + key_bytes], reference, index))
        at += length
    raise CorruptError(f"{index.where}: absurd entry at {at}, the node's end is at {end}")


def _entry(key: bytes, reference: int, index: Index) -> IndexEntry:
    """One key, which is a $FILE_NAME attribute."""
    if len(key) < 66:
        raise CorruptError(f"{index.where}: expected a name of at least 66 bytes, got {len(key)}")
    parent, flags, tag, units, namespace = _FILE_NAME.unpack_from(key)
    name = key[66 : 66 + 2 * units]
    if units == 0 or len(name) != 2 * units:
        raise CorruptError(f"{index.where}: a name of {units} units in {len(key)} bytes")
    if parent & NUMBER_MASK != index.number:
        raise CorruptError(
            f"{index.where}: expected names of this folder, got one of record"
            f" {parent & NUMBER_MASK}"
        )
    return IndexEntry(reference, name, namespace, parent, flags, tag)
