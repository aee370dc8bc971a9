"""A hostile volume, asked for everything: each operation by itself keeps its bounds."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from store.errors import CorruptError, NotFoundError, UnsupportedError
from store.image import ExtentKind, Image
from tests.fuzz.bounds import bounded_case, bounded_memory
from timefs.tree import Folder, Leaf, Link, Node

DECLARED = (CorruptError, UnsupportedError, NotFoundError)
READ_BYTES = 1 << 20
NODES_MAX = 200


class Trial:
    """The operations on one volume and what they were answered with."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.errors: list[str] = []
        self.names: set[bytes] = set()

    def each(self, what: str, operation: Callable[[], object]) -> None:
        """Do one thing in time; a declared error is an answer."""
        with bounded_case(0, what.encode(), self._folder):
            try:
                operation()
            except DECLARED as error:
                self.errors.append(f"{what}: {error}")

    def said(self, words: str) -> bool:
        """Whether an error had these words."""
        return any(words in error for error in self.errors)

    def everything(self, opener: Callable[[Image], Folder], volume: Image) -> None:
        """Open a volume, and list, look up, and read what is in it."""
        nodes: list[Node] = []
        with bounded_memory():
            self.each("open", lambda: nodes.append(opener(volume)))
            for _ in range(NODES_MAX):
                if not nodes:
                    break
                self._node(nodes.pop(), nodes)

    def _node(self, node: Node, nodes: list[Node]) -> None:
        self.each("attributes", node.attributes)
        self.each("xattrs", lambda: list(node.xattrs().items()))
        if isinstance(node, Folder):
            for _ in range(2):  # what was too much once is not paid for again
                self.each("missing name", lambda: node.lookup(b"missing"))
            self.each("list", lambda: self._list(node, nodes))
            self.each("list", lambda: sum(len(part) for part in node.entries_with_attributes()))
        elif isinstance(node, Link):
            self.each("target", node.target)
        elif isinstance(node, Leaf):
            self.each("data", lambda: _first_data(node))
            self.each("extents", lambda: list(islice(_extents(node), 1000)))
            for part in (0, 1, 2):
                self.each("read", lambda part=part: _read(node, part))

    def _list(self, folder: Folder, nodes: list[Node]) -> None:
        for name, node in folder.entries():
            self.names.add(name)
            if len(nodes) < NODES_MAX:
                nodes.append(node)


def _extents(leaf: Leaf):
    image = leaf.open()
    return image.extents(0, image.size)


def _first_data(leaf: Leaf) -> int | None:
    """What SEEK_DATA asks for."""
    return next((each.offset for each in _extents(leaf) if each.kind != ExtentKind.ZERO), None)


def _read(leaf: Leaf, part: int) -> None:
    image = leaf.open()
    image.read(max(0, image.size - READ_BYTES) * part // 2, READ_BYTES)
