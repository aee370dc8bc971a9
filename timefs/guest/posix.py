"""Folders, files, links and devices of file systems that number their inodes, as nodes of a tree.

Defined here and only here: `PosixVolume`, what such a file system must answer, `Name` and
`root_of`. Used by timefs.guest.ext and timefs.guest.xfs. Thread-safe: nodes are immutable, names
are kept in a bounded cache.

A link is shown so that it stays within its volume: `/etc/x`, met three folders deep, points to
`../../../etc/x`, and what would climb above the volume's root ends there, as in the guest. A folder
is served only through its one parent, so no cycle can be walked.
"""

import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from store.errors import CorruptError, NotFoundError
from store.image import Image
from timefs.guest.names import reader_of_names
from timefs.tree import Attributes, Entry, Folder, Leaf, Link, Node

STATE_XATTR: Final = b"user.timefs.volume_state"
LINK_BYTES_MAX: Final = 4096

NUMBER_BYTES: Final = 8
"""What a node's identity ends with is its inode's number."""


class Name(NamedTuple):
    """One name of a folder; `kind` is the type that the folder says, as in st_mode, or 0."""

    name: bytes
    number: int
    kind: int


class PosixVolume(ABC):
    """A file system that knows its files by number. Every method raises CorruptError on damage."""

    @property
    @abstractmethod
    def root_number(self) -> int:
        """The inode of the root folder."""

    @property
    @abstractmethod
    def state(self) -> str:
        """What was done about the volume's journal."""

    @abstractmethod
    def attributes(self, number: int) -> Attributes:
        """What an inode says of itself."""

    @abstractmethod
    def xattrs(self, number: int) -> dict[bytes, bytes]:
        """An inode's extended attributes."""

    @abstractmethod
    def content(self, number: int) -> Image:
        """A file's bytes.

        Raises:
            UnsupportedError: they cannot be decoded.
        """

    @abstractmethod
    def target(self, number: int) -> bytes:
        """A symbolic link's text."""

    @abstractmethod
    def parent(self, number: int) -> int:
        """The folder that a folder says it lies in."""

    @abstractmethod
    def names(self, number: int, sought: bytes | None = None) -> Iterator[Name]:
        """A folder's names without `.` and `..`; what cannot hold `sought` may be passed over.

        Raises:
            CorruptError: after all that could be read, if some of it could not.
            UnsupportedError: they cannot be decoded.
        """


def root_of(identity: bytes, volume: PosixVolume) -> "PosixFolder":
    """The root folder, which is its own parent; its nodes' identities begin with `identity`."""
    root = volume.root_number
    return PosixFolder(_Parts(identity, volume), root, root, 0)


class _Parts:
    """What the nodes of one volume share."""

    def __init__(self, identity: bytes, volume: PosixVolume) -> None:
        self.identity = identity
        self.volume = volume
        self.names = reader_of_names(volume.names)
        """A folder's names, None if they are too many to keep."""


class PosixNode(Node):
    """What all nodes have in common; a device, a pipe or a socket is this and nothing more."""

    def __init__(self, parts: _Parts, number: int, kind: int) -> None:
        """`kind` is the type that the folder says, as in st_mode."""
        self._parts = parts
        self._number = number
        self._kind = kind

    @property
    def identity(self) -> bytes:
        return self._parts.identity + self._number.to_bytes(NUMBER_BYTES, "big")

    @property
    def _where(self) -> str:
        return f"inode {self._number}"

    def attributes(self) -> Attributes:
        attributes = self._parts.volume.attributes(self._number)
        kind = stat.S_IFMT(attributes.mode)
        if kind != self._kind:
            raise CorruptError(
                f"{self._where}: expected the kind {self._kind:o} that its folder says, "
                f"got {kind:o}"
            )
        return attributes

    def xattrs(self) -> Mapping[bytes, bytes]:
        return self._parts.volume.xattrs(self._number)


class PosixFile(PosixNode, Leaf):
    """A file."""

    def open(self) -> Image:
        self.attributes()
        return self._parts.volume.content(self._number)


class PosixLink(PosixNode, Link):
    """A symbolic link, as it is met in a folder some way below the root."""

    def __init__(self, parts: _Parts, number: int, depth: int) -> None:
        super().__init__(parts, number, stat.S_IFLNK)
        self._depth = depth

    @property
    def identity(self) -> bytes:
        return super().identity + self._depth.to_bytes(4, "big")

    def attributes(self) -> Attributes:
        attributes = super().attributes()
        return attributes._replace(size=len(self._shown(attributes.size)))

    def target(self) -> bytes:
        return self._shown(super().attributes().size)

    def _shown(self, size: int) -> bytes:
        if not 0 < size <= LINK_BYTES_MAX:
            raise CorruptError(f"{self._where}: a link of {size} bytes")
        target = self._parts.volume.target(self._number).partition(b"\0")[0]
        return _inside(target, self._depth)


class PosixFolder(PosixNode, Folder):
    """A folder."""

    def __init__(self, parts: _Parts, number: int, parent: int, depth: int) -> None:
        """`parent` is the inode number of the folder that holds it, `depth` folders up the root."""
        super().__init__(parts, number, stat.S_IFDIR)
        self._parent = parent
        self._depth = depth

    def lookup(self, name: bytes) -> Node:
        self._enter()
        names = self._parts.names(self._number)
        if names is not None:
            found = names.find(name)
        else:
            listed = self._parts.volume.names(self._number, name)
            found = next((one for one in listed if one.name == name), None)
        if found is None:
            raise NotFoundError(f"{name.decode(errors='replace')}: no such name")
        return self._node(found)

    def entries(self) -> Iterator[Entry]:
        self._enter()
        for name in self._parts.volume.names(self._number):
            yield Entry(name.name, self._node(name))

    def leaf_again(self, identity: bytes) -> Node | None:
        own, number = identity[:-NUMBER_BYTES], identity[-NUMBER_BYTES:]
        if own == self._parts.identity:
            return PosixFile(self._parts, int.from_bytes(number, "big"), stat.S_IFREG)
        return None

    def xattrs(self) -> Mapping[bytes, bytes]:
        found = dict(super().xattrs())
        if self._depth == 0:
            found[STATE_XATTR] = self._parts.volume.state.encode(errors="replace")
        return found

    def _enter(self) -> None:
        self.attributes()
        parent = self._parts.volume.parent(self._number)
        if parent != self._parent:
            raise CorruptError(f"{self._where}: expected its parent {self._parent}, got {parent}")

    def _node(self, name: Name) -> Node:
        kind = name.kind or self._kind_of(name.number)
        if kind == stat.S_IFDIR:
            return PosixFolder(self._parts, name.number, self._number, self._depth + 1)
        if kind == stat.S_IFLNK:
            return PosixLink(self._parts, name.number, self._depth)
        shown = PosixFile if kind == stat.S_IFREG else PosixNode
        return shown(self._parts, name.number, kind)

    def _kind_of(self, number: int) -> int:
        """The type of an inode, for folders that do not say it; a file's if it is damaged."""
        try:
            return stat.S_IFMT(self._parts.volume.attributes(number).mode)
        except CorruptError:
            return stat.S_IFREG


def possible(name: bytes) -> bool:
    """Whether any system can hold a name."""
    return bool(name) and not {0, 47} & {*name}


def _inside(target: bytes, depth: int) -> bytes:
    """A link's target so that it is resolved from the volume's root, and never above it."""
    if target.startswith(b"/"):
        target = b"../" * depth + target.lstrip(b"/")
        return target or b"."
    parts = target.split(b"/")
    climbs = 0
    while climbs < len(parts) and parts[climbs] in (b"..", b".", b""):
        climbs += 1
    above = parts[:climbs].count(b"..") - depth
    if above <= 0:
        return target
    return b"/".join([b".."] * depth + parts[climbs:]) or b"."
