"""Tree: names leading to nodes with attributes; a leaf opens as an Image.

Defined here and only here: `Attributes`, `Node`, `Folder`, `Leaf`, `Link`, `walk`, `descend`,
`shown_name`. Used by guest file systems (which make trees), by the time tree (which joins them) and
by the mount, restore and the commands (which show them). Nodes are thread-safe. Names are bytes, as
the kernel gives them; a guest's UTF-16 names appear as WTF-8.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from store.errors import CorruptError, NotFolderError, TimefsError
from store.image import Image

PART_ENTRIES: Final = 256
"""Entries that are handed on at once."""

LARGE: Final = 1 << 63
SMALL: Final = 1 << 32
"""What numbers of a file are below, in every system call and protocol that shows them."""

TIME_NS_MAX: Final = (LARGE - 1) * 1_000_000_000

_T = TypeVar("_T")


class Attributes(NamedTuple):
    """What `stat` shows of a node. Times are UTC nanoseconds since 1970 and may be negative."""

    mode: int
    """Type and permission bits, as in st_mode."""
    size: int
    """Bytes."""
    allocated_bytes: int
    links: int
    mtime_ns: int
    atime_ns: int
    ctime_ns: int
    created_ns: int
    owner: int | None = None
    group: int | None = None
    """The guest's numbers; None where the file system has none: whoever shows it decides."""
    device: int = 0
    """What a device is, as in st_rdev."""
    windows_flags: int | None = None
    """FILE_ATTRIBUTE_…; None where the file system has none."""

    def checked(self, where: str) -> "Attributes":
        """The same, for a parser that has the numbers from a guest: all fit what shows them.

        Raises:
            CorruptError: one is larger than any file's can be.
        """
        mode, size, allocated_bytes, links, *times_ns, owner, group, device, flags = self
        for what, number, limit in (
            ("bytes", size, LARGE),
            ("bytes allocated", allocated_bytes, LARGE),
            ("as its mode", mode, SMALL),
            ("links", links, SMALL),
            ("as its owner", owner or 0, SMALL),
            ("as its group", group or 0, SMALL),
            ("as its device", device, SMALL),
            ("as its flags", flags or 0, SMALL),
        ):
            if not 0 <= number < limit:
                raise CorruptError(f"{where}: expected a number below {limit}, got {number} {what}")
        for time_ns in times_ns:
            if not -TIME_NS_MAX <= time_ns <= TIME_NS_MAX:
                raise CorruptError(f"{where}: expected a time, got {time_ns} ns from 1970")
        return self


class Node(ABC):
    """Something with a name in a tree."""

    __slots__ = ()

    @property
    @abstractmethod
    def identity(self) -> bytes:
        """What the node is, never the name it was asked by: equal for hard links, and for ever."""

    @property
    def frozen(self) -> bool:
        """Whether content and attributes can never change again."""
        return True

    @abstractmethod
    def attributes(self) -> Attributes:
        """The node's attributes."""

    def xattrs(self) -> Mapping[bytes, bytes]:
        """Extended attributes by full name, e.g. `user.timefs.actual`."""
        return {}


class Entry(NamedTuple):
    """One name of a folder."""

    name: bytes
    node: Node


Listed = tuple[bytes, Node, Attributes | None]
"""One name of a folder, its node and that node's attributes.

They are None where the node itself has to be asked, and never of one that may change.
"""


class Folder(Node):
    """A node with names below it."""

    __slots__ = ()

    @abstractmethod
    def lookup(self, name: bytes) -> Node:
        """The node of that name, listed or not.

        Raises:
            NotFoundError: there is none. Damage is never reported as absence.
        """

    @abstractmethod
    def entries(self) -> Iterable[Entry]:
        """What a listing shows, without `.` and `..`."""

    def entries_with_attributes(self) -> Iterable[Sequence[Listed]]:
        """The same in parts, with attributes where many together cost less than each alone."""
        return in_parts((name, node, None) for name, node in self.entries())

    def leaf_again(self, identity: bytes) -> Node | None:
        """A leaf of this folder that was met before, if its identity tells enough to make it."""
        del identity
        return None

    def shown_identity(self) -> bytes:
        """The identity of the folder whose entries are shown: its own unless it stands for another.

        Raises:
            TimefsError: what it stands for cannot be opened.
        """
        return self.identity

    def answer_frozen(self, name: bytes) -> bool:
        """Whether the answer to looking up `name` (a node, or none) can never change again."""
        del name
        return self.frozen


class Leaf(Node):
    """A node with bytes."""

    __slots__ = ()

    @abstractmethod
    def open(self) -> Image:
        """The node's bytes. May be kept and read from for as long as wanted."""


class Link(Node):
    """A symbolic link."""

    __slots__ = ()

    @abstractmethod
    def target(self) -> bytes:
        """Where it points, as text."""


def shown_name(name: bytes) -> str:
    """A name as a terminal can show it: what is no text, or would move the cursor, is escaped."""
    text = name.decode(errors="backslashreplace")
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def in_parts(found: Iterable[_T], count: int = PART_ENTRIES) -> Iterator[list[_T]]:
    """As many as `count` at once; what was found before an error is given before it is raised."""
    part: list[_T] = []
    try:
        for one in found:
            part.append(one)
            if len(part) == count:
                yield part
                part = []
    except TimefsError:
        yield part
        raise
    yield part


def walk(folder: Folder, path: Iterable[bytes]) -> Node:
    """The node at the end of `path`.

    Raises:
        NotFoundError: a name is not there.
        NotFolderError: a name on the way is not a folder.
    """
    node: Node = folder
    for name in path:
        if not isinstance(node, Folder):
            raise NotFolderError(f"{name.decode(errors='replace')}: its parent is not a folder")
        node = node.lookup(name)
    return node


def descend(
    folder: Folder,
    prefix: bytes = b"",
    failed: Callable[[bytes, TimefsError], None] | None = None,
) -> Iterator[tuple[bytes, Node]]:
    """Every node below `folder` with its path, parents first.

    A folder that is met a second time, under another name or in a cycle, is given and not entered.

    Args:
        folder: Where to start.
        prefix: What every path begins with.
        failed: Told the path and the error of a folder that cannot be listed to its end; the walk
            then goes on beside it.

    Raises:
        TimefsError: a folder cannot be listed, and there is nobody to be told.
    """
    entered: set[bytes] = set()
    levels = [(prefix, _entered(folder, entered))]
    while levels:
        above, entries = levels[-1]
        try:
            for name, node in entries:
                yield above + name, node
                if isinstance(node, Folder):
                    levels.append((above + name + b"/", _entered(node, entered)))
                    break
            else:
                levels.pop()
        except TimefsError as error:
            if failed is None:
                raise
            failed(above, error)
            levels.pop()


def _entered(folder: Folder, entered: set[bytes]) -> Iterator[Entry]:
    """A folder's entries if it has not been entered yet; asked for when the first is wanted."""
    identity = folder.shown_identity()
    if identity not in entered:
        entered.add(identity)
        yield from folder.entries()
