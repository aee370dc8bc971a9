"""The folders above the captured files: machines, their instants, `latest` and `@snaps`.

Defined here and only here: `TimeTree` and the folders down to an instant. Used by the mount and the
commands. Thread-safe. A folder is identified by what it resolved to, never by the name asked for;
what a name resolved to stays what it is for whoever holds the node.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from stat import S_IFDIR
from typing import Final

from store.errors import ForkedError, NotFoundError, UnsupportedError
from store.history import History, Instant
from timefs.times import LATEST, Asked, Meaning, Names, parse, spell
from timefs.timetree.cache import Cache
from timefs.timetree.disks import GUEST_DISKS, DiskParsers
from timefs.timetree.instant import InstantView, file_name, machine_name
from timefs.timetree.listing import listed_names
from timefs.timetree.opened import Opened
from timefs.tree import Attributes, Entry, Folder, Node

VIEWS_MAX: Final = 64
"""Instants whose names are kept."""

SNAPS: Final = b"@snaps"
"""The folder of a machine that spells its instants as Samba's shadow_copy2 asks for them."""

LIVE: Final = b"@live"
"""The newest instant, followed: for who stays in a folder for weeks, as a file server does."""

ACTUAL: Final = b"user.timefs.actual"
"""Extended attribute of an instant: its exact time, whatever name led to it."""

FUZZY: Final = b"user.timefs.fuzzy"
"""Extended attribute of an instant that is not crash-consistent: `1`."""


def folder_attributes(time_ns: int) -> Attributes:
    """The attributes of a read-only folder of ours."""
    return Attributes(S_IFDIR | 0o555, 0, 0, 2, time_ns, time_ns, time_ns, time_ns)


class TimeTree:
    """A repository's history as a tree of names; holds the caches that its nodes share."""

    def __init__(
        self,
        history: History,
        names: Names = Names.COLONS,
        parsers: DiskParsers = GUEST_DISKS,
    ) -> None:
        self.history = history
        self.names = names
        self.opened = Opened(history, parsers)
        self.views: Cache[bytes, InstantView] = Cache(VIEWS_MAX)

    @property
    def root(self) -> Folder:
        """The folder of all machines."""
        return RootFolder(self)


class RootFolder(Folder):
    """All machines."""

    def __init__(self, tree: TimeTree) -> None:
        self._tree = tree

    @property
    def identity(self) -> bytes:
        return b"root"

    @property
    def frozen(self) -> bool:
        return False

    def attributes(self) -> Attributes:
        history = self._tree.history
        newest = [0]
        for machine in history.machines():
            with suppress(ForkedError, UnsupportedError):  # its own folder says what is wrong
                newest.append(history.latest(machine).time_ns)
        return folder_attributes(max(newest))

    def lookup(self, name: bytes) -> Node:
        machine = machine_name(name)
        if machine not in self._tree.history.machines():
            raise NotFoundError("no such machine in this repository; `timefs log` lists them")
        return MachineFolder(self._tree, machine)

    def entries(self) -> Iterator[Entry]:
        for machine in self._tree.history.machines():
            yield Entry(file_name(machine), MachineFolder(self._tree, machine))


class MachineFolder(Folder):
    """The instants of a machine, by time; every time can be looked up, some are listed."""

    def __init__(self, tree: TimeTree, machine: str) -> None:
        self._tree = tree
        self._machine = machine
        self._names = tree.names

    @property
    def identity(self) -> bytes:
        return b"machine\0" + file_name(self._machine)

    @property
    def frozen(self) -> bool:
        return False

    def attributes(self) -> Attributes:
        return folder_attributes(self._tree.history.latest(self._machine).time_ns)

    def lookup(self, name: bytes) -> Node:
        if name == SNAPS:
            return SnapsFolder(self._tree, self._machine)
        if name == LIVE:
            return LiveFolder(self._tree, self._machine)
        history = self._tree.history
        asked = self._asked(name)
        if asked.meaning is Meaning.LATEST:
            return InstantFolder(self._tree, history.latest(self._machine))
        instant = self._at(asked.time_ns)
        if asked.start_ns > max(history.now_ns(), history.instants(self._machine)[-1].time_ns):
            raise NotFoundError("this time lies in the future")
        return InstantFolder(self._tree, instant)

    def _at(self, time_ns: int) -> Instant:
        history = self._tree.history
        try:
            return history.at(self._machine, time_ns)
        except NotFoundError as error:
            instants = history.instants(self._machine)
            if not instants:
                raise
            first = spell(instants[0].time_ns)
            raise NotFoundError(f"{error}, {first}; `latest` opens the newest") from error

    def answer_frozen(self, name: bytes) -> bool:
        """Only a time that can get no other state any more has an answer to keep."""
        try:
            asked = self._asked(name)
        except NotFoundError:
            return False
        watermark_ns = self._tree.history.watermark_ns(self._machine)
        return asked.meaning is Meaning.ABSOLUTE and asked.time_ns <= watermark_ns

    def entries(self) -> Iterator[Entry]:
        yield Entry(LATEST.encode(), self.lookup(LATEST.encode()))
        yield Entry(SNAPS, SnapsFolder(self._tree, self._machine))
        yield from self._instants()

    def _instants(self) -> Iterator[Entry]:
        now_ns = self._tree.history.now_ns()
        for name, instant in listed_names(self._listable(), now_ns, self._names):
            yield Entry(name.encode(), InstantFolder(self._tree, instant))

    def _listable(self) -> Sequence[Instant]:
        """What a listing chooses from."""
        return self._tree.history.instants(self._machine)

    def _asked(self, name: bytes) -> Asked:
        return parse(name.decode(errors="replace"), self._tree.history.now_ns())


class SnapsFolder(MachineFolder):
    """The same instants, spelled as Windows' Previous Versions asks Samba for them.

    Lists those alone at which something changed: each of them is a version.
    """

    def __init__(self, tree: TimeTree, machine: str) -> None:
        super().__init__(tree, machine)
        self._names = Names.GMT

    @property
    def identity(self) -> bytes:
        return b"snaps\0" + file_name(self._machine)

    def lookup(self, name: bytes) -> Node:
        if not name.startswith(b"@GMT-"):
            raise NotFoundError("expected a name like @GMT-2024.05.01-10.00.37")
        return super().lookup(name)

    def entries(self) -> Iterator[Entry]:
        return self._instants()

    def _listable(self) -> Sequence[Instant]:
        return self._tree.history.changed(self._machine)


class InstantFolder(Folder):
    """The captured files of a machine at one instant, and what is inside those that are disks."""

    def __init__(self, tree: TimeTree, instant: Instant) -> None:
        self._tree = tree
        self._instant = instant

    @property
    def identity(self) -> bytes:
        machine, writer, epoch, sequence, *_ = self._instant
        return b"instant\0%b\0%d:%d:%d" % (file_name(machine), writer, epoch, sequence)

    @property
    def frozen(self) -> bool:
        instant = self._instant
        return instant.time_ns <= self._tree.history.watermark_ns(instant.machine)

    def attributes(self) -> Attributes:
        return folder_attributes(self._instant.time_ns)

    def xattrs(self) -> Mapping[bytes, bytes]:
        actual = {ACTUAL: spell(self._instant.time_ns, exact=True).encode()}
        return actual | {FUZZY: b"1"} if self._instant.fuzzy else actual

    def lookup(self, name: bytes) -> Node:
        return self._view().lookup(name)

    def entries(self) -> Iterator[Entry]:
        return self._view().entries()

    def _view(self) -> InstantView:
        """What the folder holds; kept while it can no longer change."""
        if self.frozen:
            return self._tree.views.made(self.identity, self._fresh_view)
        return self._fresh_view()

    def _fresh_view(self) -> InstantView:
        return InstantView(self._tree.opened, self._instant)


class LiveFolder(Folder):
    """Whatever the newest consistent instant is: the folder stays, what is in it changes."""

    def __init__(self, tree: TimeTree, machine: str) -> None:
        self._tree = tree
        self._machine = machine

    @property
    def identity(self) -> bytes:
        return b"live\0" + file_name(self._machine)

    @property
    def frozen(self) -> bool:
        return False

    def attributes(self) -> Attributes:
        return self._newest().attributes()

    def xattrs(self) -> Mapping[bytes, bytes]:
        return self._newest().xattrs()

    def lookup(self, name: bytes) -> Node:
        return self._newest().lookup(name)

    def entries(self) -> Iterator[Entry]:
        return self._newest().entries()

    def _newest(self) -> InstantFolder:
        return InstantFolder(self._tree, self._tree.history.latest(self._machine))
