"""Folders, files, links and devices of file systems that number their inodes, as nodes of a tree.

Defined here and only here: `root_of` and the nodes. Used by timefs.guest.ext and timefs.guest.xfs,
which answer what `PosixVolume` asks. Thread-safe: nodes are immutable, names are kept in a bounded
cache.

A folder is the one that its own folder's entry leads to; what its `.` and `..` say is not asked, so
that their damage costs no file. One that lies within itself is refused, so no cycle can be walked.

A link is shown relative to the folder that it is met in: `/etc/x`, met three folders deep, points
to `../../../etc/x`, and what would climb above the volume's root ends there, as in the guest. One
that climbs on its way (`a/../b`) is followed here, because where it climbs to depends on what `a`
is; what is shown climbs at its beginning only.
"""

import stat
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Final

from store.errors import CorruptError, NotFoundError, TimefsError, UnsupportedError
from store.image import Image
from timefs.guest.names import reader_of_names
from timefs.guest.posix_volume import Name, PosixVolume, possible
from timefs.guest.xattrs import LazyXattrs
from timefs.tree import Attributes, Entry, Folder, Leaf, Link, Listed, Node

STATE_XATTR: Final = b"user.timefs.volume_state"
LINK_BYTES_MAX: Final = 4095
"""Whoever reads a link takes no longer path."""

LINKS_MAX: Final = 40
"""As many links as a kernel follows on one way."""

_UP: Final = b".."

TOGETHER_MIN: Final = 1024
TOGETHER_MAX: Final = 16384
"""Files whose attributes are surveyed at once: few first, for whoever waits for a beginning, then
many, because the inodes of neighbouring names may lie far apart."""

BARE_MAX: Final = 4
"""Surveys of which it is kept who has no extended attributes: each listing asks for two a name."""

NUMBER_BYTES: Final = 8
"""What a node's identity ends with is its inode's number, behind a zero that no volume's own
identity goes on with."""


def root_of(identity: bytes, volume: PosixVolume) -> "PosixFolder":
    """The root folder; its nodes' identities begin with `identity`."""
    return PosixFolder(_Parts(identity, volume), volume.root_number, None)


class _Parts:
    """What the nodes of one volume share."""

    def __init__(self, identity: bytes, volume: PosixVolume) -> None:
        self.identity = identity + b"\0"
        self.volume = volume

        def names(number: int) -> Iterator[Name]:
            return chain.from_iterable(volume.names(number))

        self.names = reader_of_names(names)
        """A folder's names, None if they are too many to keep."""
        self._bare: deque[frozenset[int]] = deque(maxlen=BARE_MAX)

    def survey(self, numbers: Sequence[int]) -> Sequence[Attributes | None]:
        """The attributes of many inodes; whoever lists them soon asks for extended ones too."""
        survey = self.volume.survey(numbers)
        self._bare.append(survey.bare)
        return survey.attributes

    def xattrs(self, number: int) -> Mapping[bytes, bytes]:
        """An inode's extended attributes."""
        for bare in tuple(self._bare):
            if number in bare:
                return {}
        return self.volume.xattrs(number)


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
        return self._parts.xattrs(self._number)


class PosixFile(PosixNode, Leaf):
    """A file."""

    def open(self) -> Image:
        self.attributes()
        return self._parts.volume.content(self._number)


class PosixLink(PosixNode, Link):
    """A symbolic link, as it is met in a folder."""

    def __init__(self, parts: _Parts, number: int, folder: "PosixFolder") -> None:
        super().__init__(parts, number, stat.S_IFLNK)
        self._folder = folder

    @property
    def identity(self) -> bytes:
        # The same link reads otherwise in another folder, so hard links to it are not one node.
        folder = self._folder
        return b"".join(
            (
                super().identity,
                folder.number.to_bytes(NUMBER_BYTES, "big"),
                folder.depth.to_bytes(4, "big"),
            )
        )

    def attributes(self) -> Attributes:
        attributes = super().attributes()
        try:
            return attributes._replace(size=len(self.target()))
        except UnsupportedError:
            return attributes

    def text(self) -> bytes:
        """The target as it is stored."""
        super().attributes()
        text = self._parts.volume.target(self._number).partition(b"\0")[0]
        if not text:
            raise CorruptError(f"{self._where}: a link without a text")
        return text

    def target(self) -> bytes:
        text = self.text()
        way = _Way(self._folder)
        steps = way.steps(text)
        climbs = next((at for at, step in enumerate(steps) if step != _UP), len(steps))
        if _UP in steps[climbs:]:
            way.follow(steps)
        elif text.startswith(b"/") or climbs > self._folder.depth:
            way.climbs += climbs
            way.names = [(step, None) for step in steps[climbs:]]
        else:
            return text
        shown = way.shown()
        if len(shown) > LINK_BYTES_MAX:
            raise UnsupportedError(f"{self._where}: a link to a path of {len(shown)} bytes")
        return shown


class PosixFolder(PosixNode, Folder):
    """A folder."""

    def __init__(self, parts: _Parts, number: int, above: "PosixFolder | None") -> None:
        """`above` is the folder that holds it; the root has none."""
        super().__init__(parts, number, stat.S_IFDIR)
        self.number = number
        self.above = above
        self.depth = above.depth + 1 if above is not None else 0
        """Folders up to the root."""

    def lookup(self, name: bytes) -> Node:
        self._enter()
        found = self._find(name) if possible(name) else None
        if found is None:
            raise NotFoundError(f"{name.decode(errors='replace')}: no such name")
        return self._node(found)

    def entries(self) -> Iterator[Entry]:
        self._enter()
        for names in self._parts.volume.names(self._number):
            for name in names:
                yield Entry(name.name, self._node(name))

    def entries_with_attributes(self) -> Iterator[list[Listed]]:
        self._enter()
        together: list[Name] = []
        count = TOGETHER_MIN
        try:
            for names in self._parts.volume.names(self._number):
                together += names
                if len(together) >= count:
                    yield self._surveyed(together)
                    together = []
                    count = min(2 * count, TOGETHER_MAX)
        except TimefsError:
            yield self._surveyed(together)
            raise
        yield self._surveyed(together)

    def leaf_again(self, identity: bytes) -> Node | None:
        own, number = identity[:-NUMBER_BYTES], identity[-NUMBER_BYTES:]
        if own == self._parts.identity:
            return PosixFile(self._parts, int.from_bytes(number, "big"), stat.S_IFREG)
        return None

    def xattrs(self) -> Mapping[bytes, bytes]:
        found = super().xattrs()
        if self.above is not None:
            return found
        ways: dict[bytes, bytes | Callable[[], bytes]] = {
            name: partial(found.__getitem__, name) for name in found
        }
        ways[STATE_XATTR] = self._state
        return LazyXattrs(ways)

    def _state(self) -> bytes:
        return self._parts.volume.state.encode(errors="replace")

    def _enter(self) -> None:
        """Refuse what is no folder, and a folder that lies within itself."""
        self.attributes()
        above = self.above
        while above is not None:
            if above.number == self.number:
                raise CorruptError(f"{self._where}: a folder that lies within itself")
            above = above.above

    def _find(self, name: bytes) -> Name | None:
        indexed = self._parts.volume.indexed(self._number, name)
        if indexed is not None:
            return next(iter(indexed), None)
        names = self._parts.names(self._number)
        if names is not None:
            return names.find(name)
        listed = chain.from_iterable(self._parts.volume.names(self._number, name))
        return next((one for one in listed if one.name == name), None)

    def _surveyed(self, names: Sequence[Name]) -> list[Listed]:
        """Names with their nodes, and attributes where they are at hand and what is shown.

        A link's size is that of the target as it is shown, so it has to be asked.
        """
        found = self._parts.survey([name.number for name in names])
        return list(map(self._listed, names, found))

    def _listed(self, name: Name, attributes: Attributes | None) -> Listed:
        if attributes is None:
            return name.name, self._node(name), None
        kind = stat.S_IFMT(attributes.mode)
        if not name.kind:
            name = name._replace(kind=kind)
        at_hand = kind == name.kind and kind != stat.S_IFLNK
        return name.name, self._node(name), attributes if at_hand else None

    def _node(self, name: Name) -> Node:
        kind = name.kind or self._kind_of(name.number)
        if kind == stat.S_IFREG:
            return PosixFile(self._parts, name.number, kind)
        if kind == stat.S_IFDIR:
            return PosixFolder(self._parts, name.number, self)
        if kind == stat.S_IFLNK:
            return PosixLink(self._parts, name.number, self)
        return PosixNode(self._parts, name.number, kind)

    def _kind_of(self, number: int) -> int:
        """The type of an inode, for folders that do not say it; a file's if it is damaged."""
        try:
            return stat.S_IFMT(self._parts.volume.attributes(number).mode)
        except CorruptError:
            return stat.S_IFREG


class _Way:
    """The way from a folder to where a link leads: first up, then down by names."""

    def __init__(self, folder: PosixFolder) -> None:
        self._start = folder
        self.climbs = 0
        self.names: list[tuple[bytes, Node | None]] = []
        """Each with what it is, if it was looked up."""

    def shown(self) -> bytes:
        """The way as text; above the root is the root."""
        climbs = min(self.climbs, self._start.depth)
        return b"/".join([_UP] * climbs + [name for name, _ in self.names]) or b"."

    def steps(self, text: bytes) -> list[bytes]:
        """The steps that a link's text asks for; an absolute one begins at the root."""
        if text.startswith(b"/"):
            self.climbs = self._start.depth
            self.names = []
        return [step for step in text.split(b"/") if step not in (b"", b".")]

    def follow(self, steps: list[bytes]) -> None:
        """Take steps, through the links on the way but the last.

        Raises:
            UnsupportedError: they climb from what is no folder, or from link to link without end.
        """
        left = steps[::-1]
        links = 0
        while left:
            step = left.pop()
            if step == _UP:
                self._climb()
                continue
            node = self._below(step)
            if isinstance(node, PosixLink) and left:
                links += 1
                if links > LINKS_MAX:
                    raise UnsupportedError(
                        f"a link that leads through more than {LINKS_MAX} others"
                    )
                left += self.steps(node.text())[::-1]
            else:
                self.names.append((step, node))

    def _climb(self) -> None:
        if not self.names:
            self.climbs += 1
            return
        name, node = self.names.pop()
        if not isinstance(node, PosixFolder):
            raise UnsupportedError(f"a link that climbs from {name!a}, which is no folder here")

    def _below(self, name: bytes) -> Node | None:
        """What a name means where the way has come to, None if there is nothing."""
        if self.names:
            node = self.names[-1][1]
        else:
            node = self._start
            for _ in range(min(self.climbs, self._start.depth)):
                node = node.above or node
        try:
            return node.lookup(name) if isinstance(node, PosixFolder) else None
        except NotFoundError:
            return None
