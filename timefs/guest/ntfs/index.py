"""Folder indexes: the B-tree of names in $I30.

Defined here and only here: `IndexEntry`, `Index` and `Indexes`. Used by `node`. Thread-safe: what
is held is immutable or a bounded cache.

A name not found is reported absent only when the whole index has been proven to be in order; else
every entry is looked at.
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

from store.errors import CorruptError
from timefs.guest.ntfs.btree import BLOCK_HEADER, NO_CHILD, ROOT_HEADER, Tree, scan_node
from timefs.guest.ntfs.name import Collation
from timefs.guest.ntfs.record import DATA, FILE_NAME, NUMBER_MASK
from timefs.guest.ntfs.table import FileRecord, Table

I30: Final = "$I30".encode("utf-16-le")
INDEXES_MAX: Final = 128
NODES_MAX: Final = 256
"""Open indexes and parsed blocks that a volume keeps."""

NAMESPACE_DOS: Final = 2
"""The 8.3 alias of a name that is there as well."""

UPCASE_NUMBER: Final = 10
UPCASE_BYTES: Final = 128 << 10

KEY_AT: Final = 16
NAME_AT: Final = 66
"""Where the key is in an entry, and the name in a key."""

_NAMED: Final = struct.Struct("<Q8xQ48xIIBB")
"""An entry whose key is a $FILE_NAME, up to its name."""


class IndexEntry(NamedTuple):
    """One name. `flags` and `tag` are the folder's copy of the file's flags and reparse tag."""

    reference: int
    name: bytes
    """UTF-16LE."""
    namespace: int
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
        self.node = lru_cache(NODES_MAX)(Index.load)
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
        self._tree = Tree(file, I30, FILE_NAME, cluster_bytes)
        self.where = self._tree.where
        self.number = file.record.number
        self._indexes = indexes
        self._root = parse_node(self._tree.root, ROOT_HEADER, self)

    def load(self, cluster: int) -> IndexNode:
        """A node other than the root.

        Raises:
            CorruptError: it is damaged.
        """
        return parse_node(self._tree.block(cluster), BLOCK_HEADER, self)

    def entries(self) -> Iterator[IndexEntry]:
        """Every name but the 8.3 aliases.

        Raises:
            CorruptError: on reaching a block that is damaged or that was met before.
        """
        for part in self.parts():
            yield from part

    def parts(self) -> Iterator[list[IndexEntry]]:
        """The same, those of each block together."""
        for node, _, _ in self._walk():
            yield [entry for entry in node.entries if entry.namespace != NAMESPACE_DOS]

    def find(self, name: bytes) -> IndexEntry | None:
        """The entry of a name (UTF-16LE), None if there surely is none.

        Raises:
            CorruptError: damage on the way, or damage that may hide the name.
        """
        if self._root.children == [NO_CHILD] * len(self._root.children):
            alike = iter(self._root.entries)
        else:
            alike = self._alike(name)
        shown = (entry for entry in alike if entry.namespace != NAMESPACE_DOS)
        return next((entry for entry in shown if entry.name == name), None)

    def find_alike(self, name: bytes) -> IndexEntry | None:
        """The entry that Windows means by a name: in any case, or an 8.3 alias.

        Where several differ in case only, the one that is spelled as asked goes first.

        Raises:
            CorruptError: damage on the way, or damage that may hide the name.
        """
        found = list(self._descend(name)) or list(self._alike(name))
        found.sort(key=lambda entry: (entry.namespace == NAMESPACE_DOS, entry.name != name))
        return found[0] if found else None

    def _alike(self, name: bytes) -> Iterator[IndexEntry]:
        """Every entry, aliases too, whose name differs from `name` in case at most."""
        yield from self._descend(name)
        if self.in_order:
            return
        key = self._indexes.collation.keys([name])[0]
        for node, _, _ in self._walk():
            keys = node.keys(self._indexes.collation)
            yield from (one for one, own in zip(node.entries, keys, strict=True) if own == key)

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
                bounds = list(zip(node.children, keys, keys[1:], strict=False))
                nodes += [bound for bound in reversed(bounds) if bound[0] != NO_CHILD]
            if not nodes:
                return
            cluster, low, high = nodes.pop()
            self._meet(cluster, met)
            node = self._node(cluster)

    def _descend(self, name: bytes) -> Iterator[IndexEntry]:
        """Search as the tree is ordered; names that differ in case only may lie side by side."""
        key = self._indexes.collation.keys([name])[0]
        met: set[int] = set()
        nodes = [self._root]
        clusters: list[int] = []
        while nodes:
            node = nodes.pop()
            keys = node.keys(self._indexes.collation)
            first, last = bisect_left(keys, key), bisect_right(keys, key)
            yield from node.entries[first:last]
            clusters += [one for one in node.children[first : last + 1] if one != NO_CHILD]
            if clusters:
                cluster = clusters.pop()
                self._meet(cluster, met)
                nodes.append(self._node(cluster))

    def _meet(self, cluster: int, met: set[int]) -> None:
        if cluster in met:
            raise CorruptError(f"{self.where}: its block {cluster} is reached twice")
        met.add(cluster)


def parse_node(data: bytes, header: int, index: Index) -> IndexNode:
    """The entries of a node whose index header is at `header`.

    Raises:
        CorruptError: entries out of bounds, of another folder or without an end.
    """
    places, children = scan_node(data, header, index.where)
    entries: list[IndexEntry] = []
    for at, key_bytes in places:
        if key_bytes < NAME_AT:
            raise CorruptError(f"{index.where}: expected a name of 66 bytes, got {key_bytes}")
        reference, parent, flags, tag, units, namespace = _NAMED.unpack_from(data, at)
        if units == 0 or NAME_AT + 2 * units > key_bytes:
            raise CorruptError(f"{index.where}: a name of {units} units in {key_bytes} bytes")
        if parent & NUMBER_MASK != index.number:
            raise CorruptError(
                f"{index.where}: expected names of this folder, got one of record"
                f" {parent & NUMBER_MASK}"
            )
        start = at + KEY_AT + NAME_AT
        name = data[start : start + 2 * units]
        entries.append(IndexEntry(reference, name, namespace, flags, tag))
    return IndexNode(entries, children)
