"""Folders, files, links and devices of a volume, as nodes of a tree.

Defined here and only here: `Parts` and the nodes. Used by `volume`. Thread-safe and immutable.

A link is shown so that it stays within its volume: `/etc/x`, met three folders deep, points to
`../../../etc/x`, and what would climb above the volume's root ends there, as in the guest.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from typing import Final, NamedTuple

from store.errors import CorruptError, NotFoundError
from store.image import BytesImage, Image
from timefs.guest.ext.content import mapped
from timefs.guest.ext.folder import Name, names_of, parent_of
from timefs.guest.ext.inode import BLOCK_AREA_BYTES, SECTOR_BYTES, Flag, Inode
from timefs.guest.ext.table import Table
from timefs.guest.ext.xattrs import inline_rest, read_xattrs
from timefs.tree import Attributes, Entry, Folder, Leaf, Link, Node

ROOT_NUMBER: Final = 2
STATE_XATTR: Final = b"user.timefs.volume_state"
LINK_BYTES_MAX: Final = 4096
FOLDERS_MAX: Final = 16
NAMES_MAX: Final = 20_000
"""Folders whose names are kept, if they have no more than that."""

_KINDS: Final = {
    1: stat.S_IFREG,
    2: stat.S_IFDIR,
    3: stat.S_IFCHR,
    4: stat.S_IFBLK,
    5: stat.S_IFIFO,
    6: stat.S_IFSOCK,
    7: stat.S_IFLNK,
}


class Parts:
    """What the nodes of one volume share."""

    def __init__(self, identity: bytes, table: Table, state: str) -> None:
        self.identity = identity
        self.table = table
        self.state = state
        """What was done about the volume's journal."""
        self.names = lru_cache(FOLDERS_MAX)(partial(_read_names, table))
        """A folder's names, None if they are too many to keep."""


class _Names(NamedTuple):
    """A folder's names, and why some of them are missing."""

    found: dict[bytes, Name]
    refusal: CorruptError | None


def _read_names(table: Table, number: int) -> _Names | None:
    found: dict[bytes, Name] = {}
    try:
        for name in names_of(table, table.inode(number)):
            found[name.name] = name
            if len(found) > NAMES_MAX:
                return None
    except CorruptError as error:
        return _Names(found, error)
    return _Names(found, None)


class ExtNode(Node):
    """What all nodes have in common."""

    def __init__(self, parts: Parts, number: int, kind: int) -> None:
        """`kind` is the type that the folder says, as in st_mode."""
        self._parts = parts
        self._number = number
        self._kind = kind

    @property
    def identity(self) -> bytes:
        return self._parts.identity + self._number.to_bytes(4, "big")

    def _inode(self) -> Inode:
        inode = self._parts.table.inode(self._number)
        if stat.S_IFMT(inode.mode) != self._kind:
            raise CorruptError(
                f"{inode.where}: expected the kind {self._kind:o} that its folder says, "
                f"got {stat.S_IFMT(inode.mode):o}"
            )
        return inode

    def attributes(self) -> Attributes:
        inode = self._inode()
        return Attributes(
            mode=inode.mode,
            size=self._size(inode),
            allocated_bytes=self._allocated_bytes(inode),
            links=inode.links,
            mtime_ns=inode.mtime_ns,
            atime_ns=inode.atime_ns,
            ctime_ns=inode.ctime_ns,
            created_ns=inode.created_ns,
            owner=inode.owner,
            group=inode.group,
            device=_device(inode),
        )

    def _size(self, inode: Inode) -> int:
        return inode.size

    def _allocated_bytes(self, inode: Inode) -> int:
        return inode.allocated_bytes

    def xattrs(self) -> Mapping[bytes, bytes]:
        return read_xattrs(self._parts.table, self._inode())


class ExtFile(ExtNode, Leaf):
    """A file."""

    def open(self) -> Image:
        return _content(self._parts.table, self._inode())

    def _allocated_bytes(self, inode: Inode) -> int:
        """Content within the inode counts, as in the kernel: else it would seem to be a hole."""
        inline = inode.size if inode.flags & Flag.INLINE else 0
        return inode.allocated_bytes + -(-inline // SECTOR_BYTES) * SECTOR_BYTES


class ExtSpecial(ExtNode):
    """A device, a pipe or a socket: shown, never opened."""

    def _size(self, inode: Inode) -> int:
        del inode
        return 0


class ExtLink(ExtNode, Link):
    """A symbolic link, as it is met in a folder some way below the root."""

    def __init__(self, parts: Parts, number: int, depth: int) -> None:
        super().__init__(parts, number, stat.S_IFLNK)
        self._depth = depth

    @property
    def identity(self) -> bytes:
        return super().identity + self._depth.to_bytes(4, "big")

    def target(self) -> bytes:
        inode = self._inode()
        if not 0 < inode.size <= LINK_BYTES_MAX:
            raise CorruptError(f"{inode.where}: a link of {inode.size} bytes")
        fast = inode.size < BLOCK_AREA_BYTES and not inode.flags & (
            Flag.EXTENTS | Flag.INLINE | Flag.ENCRYPTED
        )
        image = BytesImage(inode.area) if fast else _content(self._parts.table, inode)
        return _inside(image.read(0, inode.size).partition(b"\0")[0], self._depth)

    def _size(self, inode: Inode) -> int:
        del inode
        return len(self.target())


class ExtFolder(ExtNode, Folder):
    """A folder. It is served only through its one parent, so no cycle can be walked."""

    def __init__(self, parts: Parts, number: int, parent: int, depth: int) -> None:
        """`parent` is the inode number of the folder that holds it, `depth` folders up the root."""
        super().__init__(parts, number, stat.S_IFDIR)
        self._parent = parent
        self._depth = depth

    def lookup(self, name: bytes) -> Node:
        inode = self._entered()
        names = self._parts.names(self._number)
        if names is not None:
            found = names.found.get(name)
            if found is not None:
                return self._node(found)
            if names.refusal is not None:
                raise names.refusal
        elif name not in (b"", b".", b".."):
            for one in names_of(self._parts.table, inode, name):
                if one.name == name:
                    return self._node(one)
        raise NotFoundError(f"{name.decode(errors='replace')}: no such name")

    def entries(self) -> Iterator[Entry]:
        for name in names_of(self._parts.table, self._entered()):
            yield Entry(name.name, self._node(name))

    def xattrs(self) -> Mapping[bytes, bytes]:
        found = dict(super().xattrs())
        if self._number == ROOT_NUMBER:
            found[STATE_XATTR] = self._parts.state.encode(errors="replace")
        return found

    def _entered(self) -> Inode:
        inode = self._inode()
        parent = parent_of(self._parts.table, inode)
        if parent != self._parent:
            raise CorruptError(f"{inode.where}: expected its parent {self._parent}, got {parent}")
        return inode

    def _node(self, name: Name) -> Node:
        kind = _KINDS.get(name.kind) or self._kind_of(name.number)
        if kind == stat.S_IFDIR:
            return ExtFolder(self._parts, name.number, self._number, self._depth + 1)
        if kind == stat.S_IFLNK:
            return ExtLink(self._parts, name.number, self._depth)
        if kind == stat.S_IFREG:
            return ExtFile(self._parts, name.number, kind)
        return ExtSpecial(self._parts, name.number, kind)

    def _kind_of(self, number: int) -> int:
        """The type of an inode, for folders that do not say it; a file's if it is damaged."""
        try:
            return stat.S_IFMT(self._parts.table.inode(number).mode)
        except CorruptError:
            return stat.S_IFREG


def _content(table: Table, inode: Inode) -> Image:
    if not inode.flags & Flag.INLINE:
        return mapped(table, inode)
    content = inode.area[: inode.size]
    if inode.size > len(content):
        content += inline_rest(table, inode)
    if len(content) < inode.size:
        raise CorruptError(f"{inode.where}: expected {inode.size} bytes, it holds {len(content)}")
    return BytesImage(content[: inode.size])


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


def _device(inode: Inode) -> int:
    """The device's number; the old form has 8 bits a part, the new one more."""
    if not stat.S_ISCHR(inode.mode) and not stat.S_ISBLK(inode.mode):
        return 0
    old = int.from_bytes(inode.area[:4], "little")
    if old:
        return os.makedev(old >> 8 & 0xFF, old & 0xFF)
    new = int.from_bytes(inode.area[4:8], "little")
    return os.makedev(new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00)


def root_of(parts: Parts) -> ExtFolder:
    """The root folder, which is its own parent."""
    return ExtFolder(parts, ROOT_NUMBER, ROOT_NUMBER, 0)
