"""The view of the history that Samba serves: Windows' names, Samba's attributes, and rights.

Defined here and only here: `view` and `Rights`. Used by the share's service. Thread-safe.

Each node stands before one of the time tree and has its identity. A name is looked up as it is
spelt; only one that is not there is searched for without regard to case.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISDIR
from typing import Final, NamedTuple

from store.errors import NotFoundError
from store.image import Image
from timefs.share.attributes import SambaAttributes, dos_attributes
from timefs.share.names import distinct_names, folded, from_windows
from timefs.timetree.cache import Cache
from timefs.timetree.tree import SNAPS, InstantFolder, LiveFolder, MachineFolder
from timefs.tree import Attributes, Entry, Folder, Leaf, Link, Listed, Node, in_parts

FOLDERS_MAX: Final = 64
KEPT_NAMES_MAX: Final = 20_000
"""Folders whose names without case are kept, and how many names each of them may have."""

_SERVED: Final = (S_IFREG, S_IFDIR, S_IFLNK)
"""Devices, pipes and sockets are shown as empty files that nobody may read."""

_READABLE: Final = 0o444
_PASSABLE: Final = 0o111
_OWNER_ONLY: Final = 0o100400


class Rights(StrEnum):
    """Whose rights decide who may read a guest's file."""

    GUEST = "guest"
    """The guest's own, as Samba enforces them; whole disks are for administrators."""
    SHARE = "share"
    """Everybody who may use the share reads everything in it."""


class _View(NamedTuple):
    rights: Rights
    names: Cache[bytes, dict[bytes, bytes]]


def view(root: Folder, rights: Rights) -> Folder:
    """A time tree's root as Samba is to serve it."""
    return ViewFolder(_View(rights, Cache(FOLDERS_MAX)), root)


class ViewNode(Node):
    """What folders, files and links have in common."""

    def __init__(self, shared: _View, node: Node) -> None:
        self._view = shared
        self._node = node
        self._kept: SambaAttributes | None = None

    def with_dos_attributes(self, listed: Attributes) -> None:
        """Keep what Samba asks each listed file for, made of attributes that are at hand."""
        self._kept = self._samba_attributes(dos_attributes(listed))

    def _samba_attributes(self, dos: bytes | None = None) -> SambaAttributes:
        with_acl = self._view.rights is Rights.GUEST
        return SambaAttributes(self._node, with_acl=with_acl, dos=dos)

    @property
    def identity(self) -> bytes:
        return self._node.identity

    @property
    def frozen(self) -> bool:
        return self._node.frozen

    def attributes(self) -> Attributes:
        return self.shown(self._node.attributes())

    def shown(self, shown: Attributes) -> Attributes:
        """Of a Linux guest's rights those of others count: its users are not this server's."""
        mode = shown.mode
        if S_IFMT(mode) not in _SERVED:
            return shown._replace(mode=S_IFREG, size=0, owner=None, group=None, device=0)
        if self._view.rights is Rights.SHARE:
            mode |= _READABLE | (_PASSABLE if S_ISDIR(mode) else 0)
        return shown._replace(mode=mode, owner=None, group=None)

    def xattrs(self) -> Mapping[bytes, bytes]:
        """Kept where they cannot change: Samba asks for each node's several times."""
        if self._kept is not None:
            return self._kept
        shown = self._samba_attributes()
        if self.frozen:
            self._kept = shown
        return shown


class ViewFile(ViewNode, Leaf):
    """A guest's file, or one of a folder of ours."""

    def __init__(self, shared: _View, node: Leaf) -> None:
        super().__init__(shared, node)
        self._leaf = node

    def open(self) -> Image:
        return self._leaf.open()


class ViewWhole(ViewFile):
    """A captured file: it holds what the rights of the files inside it would hide."""

    def shown(self, shown: Attributes) -> Attributes:
        shown = super().shown(shown)
        if self._view.rights is Rights.GUEST:
            return shown._replace(mode=_OWNER_ONLY)
        return shown


class ViewLink(ViewNode, Link):
    """A guest's symbolic link."""

    def __init__(self, shared: _View, node: Link) -> None:
        super().__init__(shared, node)
        self._link = node

    def target(self) -> bytes:
        return self._link.target()


class ViewFolder(ViewNode, Folder):
    """A folder whose names Windows can take."""

    def __init__(self, shared: _View, node: Folder) -> None:
        super().__init__(shared, node)
        self._folder = node

    def lookup(self, name: bytes) -> Node:
        try:
            return self._shown(self._folder.lookup(from_windows(name)))
        except NotFoundError:
            true = self._names().get(folded(name))
            if true is None:
                raise
            return self._shown(self._folder.lookup(true))

    def answer_frozen(self, name: bytes) -> bool:
        return self._folder.answer_frozen(from_windows(name))

    def entries(self) -> Iterator[Entry]:
        for part in self.entries_with_attributes():
            for name, node, _ in part:
                yield Entry(name, node)

    def entries_with_attributes(self) -> Iterator[Sequence[Listed]]:
        """All names are taken in before the first is shown: which are alike is known then."""
        listed = {each[0]: each for part in self._folder.entries_with_attributes() for each in part}
        if isinstance(self._folder, MachineFolder):
            listed.pop(SNAPS, None)  # Samba looks there by name; to people it shows all twice
        return in_parts(
            self._listed(name, *listed[true][1:]) for true, name in distinct_names(listed).items()
        )

    def _listed(self, name: bytes, node: Node, attributes: Attributes | None) -> Listed:
        shown = self._shown(node)
        if attributes is None:
            return name, shown, None
        shown.with_dos_attributes(attributes)
        return name, shown, shown.shown(attributes)

    def leaf_again(self, identity: bytes) -> Node | None:
        node = self._folder.leaf_again(identity)
        return None if node is None else self._shown(node)

    def shown_identity(self) -> bytes:
        return self._folder.shown_identity()

    def _shown(self, node: Node) -> ViewNode:
        if isinstance(node, Folder):
            return ViewFolder(self._view, node)
        if isinstance(node, Link):
            return ViewLink(self._view, node)
        assert isinstance(node, Leaf)
        is_whole = isinstance(self._folder, InstantFolder | LiveFolder)
        return (ViewWhole if is_whole else ViewFile)(self._view, node)

    def _names(self) -> dict[bytes, bytes]:
        """The folder's names by what is shown of them, without case."""
        if not self._folder.frozen:
            return self._fresh_names()
        names = self._view.names.get(self.identity)
        if names is None:
            names = self._fresh_names()
            if len(names) <= KEPT_NAMES_MAX:
                self._view.names.put(self.identity, names)
        return names

    def _fresh_names(self) -> dict[bytes, bytes]:
        shown = distinct_names(entry.name for entry in self._folder.entries())
        return {folded(name): true for true, name in shown.items()}
