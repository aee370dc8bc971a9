"""The nodes inside a captured disk, as light stand-ins for those of the parsers.

Defined here and only here: `guest_folder`, `groups_folder` and the stand-ins. Used by an instant's
folder. Thread-safe. The kernel may hold very many nodes for long; a stand-in knows only the way to
its node, so that a volume can be closed and opened again beneath it, and remembers the node only as
long as the volume does. Its identity, which does not change, proves that the node found again is
the same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from stat import S_IFDIR
from typing import Final, NamedTuple, TypeVar
from weakref import ref

from store.errors import CorruptError, DeniedError
from store.image import Image
from timefs.timetree.disks import Form
from timefs.timetree.failures import KnownFailures
from timefs.timetree.opened import Captured, GroupDisks, Guest, Opened
from timefs.tree import Attributes, Entry, Folder, Leaf, Link, Listed, Node, in_parts

T = TypeVar("T")

_USER: Final = b"user."


class Place(NamedTuple):
    """Which folder of a parser: how to have it, opened if it is not, and what is known of it."""

    guest: Callable[[], Guest]
    time_ns: int
    failures: KnownFailures


class GuestNode(Node):
    """Stands for a node that is found again by its name below its parent.

    The kernel has some hundred thousand of these held.
    """

    __slots__ = ("_identity", "_name", "_place", "_remembered", "parent")

    def __init__(
        self, place: Place, parent: "GuestFolder | None", name: bytes, identity: bytes
    ) -> None:
        self._place = place
        self.parent = parent
        self._name = name
        self._identity = identity
        self._remembered: Callable[[], Node | None] = _nothing

    @property
    def identity(self) -> bytes:
        return self._identity

    def attributes(self) -> Attributes:
        return self._tried(b"attributes", lambda: self._node().attributes())

    def xattrs(self) -> Mapping[bytes, bytes]:
        return self._tried(b"xattrs", lambda: self._node().xattrs())

    def _tried(self, what: bytes, ask: Callable[[], T], name: bytes = b"") -> T:
        """Ask the node something, unless it is known what comes of it."""
        return self._place.failures.tried((what, self._identity, name), ask)

    def remember(self, node: Node) -> None:
        """Take the short way to the node while the volume keeps it."""
        self._remembered = ref(node)

    def remembered(self) -> Node | None:
        """The node, if it was met and the volume still keeps it."""
        return self._remembered()

    def _node(self) -> Node:
        """The node stood for."""
        node = self._remembered()
        if node is None:
            node = self._reached()
            self.remember(node)
        return node

    def _reached(self) -> Node:
        """The node stood for: one met lately, or reached from the nearest such parent."""
        guest = self._place.guest()
        missing: list[GuestNode] = []
        stand_in = self
        node: Node | None = None
        while stand_in.parent is not None:
            node = guest.nodes.get(stand_in.identity)
            if node is not None:
                break
            missing.append(stand_in)
            stand_in = stand_in.parent
        node = node or guest.root
        for stand_in in reversed(missing):
            node = stand_in.found_again(node)
            stand_in.remember(guest.nodes.put(stand_in.identity, node))
        return node

    def found_again(self, parent: Node) -> Node:
        """The node stood for, below its parent's node."""
        node = parent.lookup(self._name) if isinstance(parent, Folder) else None
        if node is None or node.identity != self._identity:
            raise CorruptError(f"{self._name!a}: expected the same node as before, got another")
        return node


def _nothing() -> None:
    """What a stand-in remembers that has met nothing yet."""


class GuestFolder(GuestNode, Folder):
    """A folder of a guest's volume, or the folder of the disk itself."""

    __slots__ = ()

    def attributes(self) -> Attributes:
        if self.parent is not None:
            return super().attributes()
        time_ns = self._place.time_ns  # without opening the disk
        return Attributes(S_IFDIR | 0o555, 0, 0, 2, time_ns, time_ns, time_ns, time_ns)

    def xattrs(self) -> Mapping[bytes, bytes]:
        return DiskXattrs(self._node) if self.parent is None else super().xattrs()

    def shown_identity(self) -> bytes:
        return self._tried(b"identity", lambda: self._folder().shown_identity())

    def lookup(self, name: bytes) -> Node:
        node = self._tried(b"lookup", lambda: self._folder().lookup(name), name)
        return self._stand_in(self._place.guest(), name, node)

    def entries(self) -> Iterator[Entry]:
        guest = self._place.guest()
        for part in self._parts(lambda: in_parts(self._folder().entries())):
            for name, node in part:
                yield Entry(name, self._stand_in(guest, name, node))

    def _parts(self, listed: Callable[[], Iterable[T]]) -> Iterator[T]:
        """A listing, each part of which is asked for by itself."""
        coming = self._tried(b"entries", lambda: iter(listed()))
        while (part := self._tried(b"entries", lambda: next(coming, None))) is not None:
            yield part

    def entries_with_attributes(self) -> Iterator[Sequence[Listed]]:
        guest = self._place.guest()
        for part in self._parts(lambda: self._folder().entries_with_attributes()):
            yield [
                (name, self._stand_in(guest, name, node, attributes), attributes)
                for name, node, attributes in part
            ]

    def _folder(self) -> Folder:
        folder = self._node()
        if not isinstance(folder, Folder):
            raise CorruptError(f"{self._name!a}: expected a folder as before")
        return folder

    def _stand_in(
        self, guest: Guest, name: bytes, node: Node, attributes: Attributes | None = None
    ) -> Node:
        """What stands for a node; a file whose attributes are at hand is not asked soon."""
        identity = node.identity
        kind = _stand_in_kind(type(node))
        stand_in = kind(self._place, self, name, identity)
        if attributes is None or kind is not GuestFile:
            stand_in.remember(guest.nodes.put(identity, node))
        return stand_in

    def depth(self) -> int:
        """How many folders lie above, within the disk."""
        folder, depth = self.parent, 0
        while folder is not None:
            folder, depth = folder.parent, depth + 1
        return depth


class DiskXattrs(Mapping[bytes, bytes]):
    """Attributes of a disk's folder: a user's alone, for which the disk is opened.

    Every program that lists the folder above asks for others, and must not open all the disks.
    """

    def __init__(self, node: Callable[[], Node]) -> None:
        self._node = node

    def _found(self) -> dict[bytes, bytes]:
        found = self._node().xattrs().items()
        return {name: value for name, value in found if name.startswith(_USER)}

    def __getitem__(self, name: bytes) -> bytes:
        if not name.startswith(_USER):
            raise KeyError(name)
        return self._found()[name]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())


class GuestFile(GuestNode, Leaf):
    """A guest file."""

    __slots__ = ()

    def _reached(self) -> Node:
        folder = self.parent.remembered() if self.parent is not None else None
        again = folder.leaf_again(self._identity) if isinstance(folder, Folder) else None
        if again is None:
            return super()._reached()
        return self._place.guest().nodes.put(self._identity, again)  # several questions follow

    def open(self) -> Image:
        return self._tried(b"open", self._open)

    def _open(self) -> Image:
        node = self._node()
        if not isinstance(node, Leaf):
            raise CorruptError(f"{self._name!a}: expected a file as before")
        return node.open()


class GuestLink(GuestNode, Link):
    """A symbolic link of a guest; one that leads out of its disk is not given to anybody."""

    __slots__ = ()

    def target(self) -> bytes:
        target = self._tried(b"target", self._true_target)
        parts = [part for part in target.split(b"/") if part not in (b"", b".")]
        climbs = next((at for at, part in enumerate(parts) if part != b".."), len(parts))
        room = self.parent.depth() if self.parent is not None else 0
        if climbs > room or target.startswith(b"/"):
            raise DeniedError(f"{self._name!a}: a link out of its volume, to {target!a}")
        if b".." in parts[climbs:]:  # what it climbs from may be a link itself
            raise DeniedError(f"{self._name!a}: a link that climbs on its way, to {target!a}")
        return target

    def _true_target(self) -> bytes:
        node = self._node()
        if not isinstance(node, Link):
            raise CorruptError(f"{self._name!a}: expected a link as before")
        return node.target()


@cache
def _stand_in_kind(kind: type[Node]) -> type[GuestNode]:
    for shown, stand_in in ((Folder, GuestFolder), (Link, GuestLink), (Leaf, GuestFile)):
        if issubclass(kind, shown):
            return stand_in
    return GuestNode


def guest_folder(opened: Opened, captured: Captured, form: Form) -> Folder:
    """The folder that shows a disk; nothing is opened yet."""
    identity = opened.disk_identity(captured) + b"\0" + form.name.encode()
    place = Place(lambda: opened.guest(captured, form), captured.state.changed_ns, opened.failures)
    return GuestFolder(place, None, b"", identity)


def groups_folder(opened: Opened, disks: GroupDisks) -> Folder:
    """The folder that shows the volumes of groups; nothing is opened yet."""
    place = Place(lambda: opened.groups(disks), disks.time_ns, opened.failures)
    return GuestFolder(place, None, b"", opened.groups_identity(disks))
