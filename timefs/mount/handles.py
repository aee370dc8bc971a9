"""Handles: the node ids that the kernel holds.

Defined here and only here: `Handle` and `Handles`. Used by the file-system core. Thread-safe.

A node id is a handle: it is counted up by every answer that gives it to the kernel, counted down by
FORGET, and never used again. A leaf has one id wherever it is met, so that equal content has one
page cache; a folder has one for each place it is met at, because the kernel moves a folder that it
meets under a second name.
"""

import errno
from functools import cache
from itertools import count, islice
from threading import Lock
from typing import Final

from blake3 import blake3

from timefs.mount.failures import FileSystemError
from timefs.tree import Folder, Node

ROOT_ID: Final = 1

HELD_MAX: Final = 105_000
"""Nodes that the kernel may hold before it is asked to forget those that it met first, some 450
bytes each. Programs take in up to 100,000 names (fts, of find and du) before they ask for one."""

PRUNED_TOGETHER: Final = 1024


class Handle:
    """One node that the kernel knows."""

    __slots__ = ("lookups", "name", "node", "node_id", "parent_id")

    def __init__(self, node_id: int, node: Node, parent_id: int, name: bytes) -> None:
        self.node_id = node_id
        self.node = node
        self.parent_id = parent_id
        self.name = name
        self.lookups = 0

    @property
    def key(self) -> object:
        """What tells it from other handles: a folder's place counts, a leaf's does not."""
        return _key(self.node, self.parent_id, self.name)

    @property
    def is_folder(self) -> bool:
        """Whether it has names below it."""
        return _is_folder(type(self.node))


def _key(node: Node, parent_id: int, name: bytes) -> object:
    identity = node.identity
    return (parent_id, name, identity) if _is_folder(type(node)) else identity


@cache
def _is_folder(kind: type[Node]) -> bool:
    return issubclass(kind, Folder)


def inode_of(node: Node) -> int:
    """The inode number that programs see: the same for the same node in every mount."""
    return int.from_bytes(blake3(node.identity).digest(length=8), "little") or 1


class Handles:
    """All handles of a mount, by node id."""

    def __init__(self, root: Folder) -> None:
        self._root = Handle(ROOT_ID, root, ROOT_ID, b"")
        self._by_id: dict[int, Handle] = {ROOT_ID: self._root}
        self._by_key: dict[object, Handle] = {}
        self._next_id = count(ROOT_ID + 1)
        self._pruned_up_to = ROOT_ID
        self._pruned_held = 1
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._by_id)

    def __getitem__(self, node_id: int) -> Handle:
        handle = self._by_id.get(node_id)
        if handle is None:
            raise FileSystemError(errno.ESTALE)
        return handle

    def grant(self, node: Node, parent_id: int, name: bytes) -> Handle:
        """The handle of a node that is about to be given to the kernel once more."""
        key = _key(node, parent_id, name)
        with self._lock:
            handle = self._by_key.get(key)
            if handle is None:
                handle = Handle(next(self._next_id), node, parent_id, name)
                self._by_key[key] = handle
                self._by_id[handle.node_id] = handle
            handle.lookups += 1
            return handle

    def forget(self, node_id: int, lookups: int) -> None:
        """The kernel gives back `lookups` of the grants of a node id."""
        with self._lock:
            handle = self._by_id.get(node_id)
            if handle is None or handle is self._root:
                return
            handle.lookups -= lookups
            if handle.lookups <= 0:
                del self._by_id[node_id]
                if node_id <= self._pruned_up_to:
                    self._pruned_held -= 1
                del self._by_key[handle.key]

    def surplus(self) -> list[Handle]:
        """If there are too many, some of those that were met first; each in its turn, and again."""
        if len(self._by_id) <= HELD_MAX:
            return []
        with self._lock:
            if self._pruned_held >= len(self._by_id):
                self._pruned_up_to, self._pruned_held = ROOT_ID, 1
            start = self._pruned_held  # the oldest come first: behind those that were not forgotten
            chosen = list(islice(self._by_id.values(), start, start + PRUNED_TOGETHER))
            self._pruned_up_to = chosen[-1].node_id
            self._pruned_held += len(chosen)
        return chosen

    def path(self, node_id: int) -> str:
        """Where a node was first met, for messages; as far as it is still known."""
        names: list[bytes] = []
        handle = self._by_id.get(node_id)
        while handle is not None and handle is not self._root:
            names.append(handle.name)
            handle = self._by_id.get(handle.parent_id)
        if handle is None:
            names.append("…".encode())
        return b"/".join(reversed(names)).decode(errors="backslashreplace")
