r"""Folders of a volume and the links in them.

Defined here and only here: `NtfsFolder` and `NtfsLink`. Used by `volume`. Thread-safe and
immutable.

A link's target is given relative to the link's folder, climbs at most to the volume's root and
goes down from there, so whatever is on the volume it leads nowhere outside. Names are spelled as
the folders have them. An absolute Windows path (`C:\...`) is taken to be of this volume when it
leads to something here, since no volume knows its drive letter; one that does not, and one that
names a whole drive, another volume or another computer, cannot be read, and the error says why.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Final

from store.errors import CorruptError, NotFoundError, UnsupportedError
from timefs.guest.ntfs.file import FLAG_FOLDER, FLAG_REPARSE, USER_NUMBER_MIN, NtfsFile, NtfsStream
from timefs.guest.ntfs.index import NAMESPACE_DOS, Index, IndexEntry
from timefs.guest.ntfs.name import escaped, find_name, show_name, show_names
from timefs.guest.ntfs.node import FOLDER_MODE, REFERENCE_BYTES, NtfsNode, Parts
from timefs.guest.ntfs.record import DATA, FILE_NAME, NUMBER_MASK
from timefs.guest.ntfs.reparse import LINK_TAGS, Target, parse_target, read_reparse, refuse
from timefs.guest.ntfs.state import HIBERNATION_FILE, VOLUME_STATE, read_state
from timefs.guest.ntfs.survey import survey
from timefs.guest.ntfs.xattrs import read_standard
from timefs.tree import Attributes, Entry, Folder, Link, Listed, Node, in_parts

ROOT_NUMBER: Final = 5
LINK_MODE: Final = 0o120777

TOGETHER: Final = 1024
"""Files whose attributes are surveyed at once."""

TOGETHER_MIN: Final = 16
"""Below, each node is asked: a survey costs as much for one file as for that many."""

TARGET_BYTES_MAX: Final = 4095
"""The kernel takes no longer path."""

_UP: Final = b".."


class NtfsFolder(NtfsNode, Folder):
    """A folder. It is served only through its one parent, so no cycle can be walked."""

    _folder = True

    def __init__(
        self, parts: Parts, reference: int, above: "NtfsFolder | None" = None, name: bytes = b""
    ) -> None:
        """`above` is the folder that holds it as `name`; the root has none."""
        super().__init__(parts, reference)
        self._above = above
        self._name = name

    def path(self) -> list[bytes]:
        """The names that lead from the root to the folder."""
        names: list[bytes] = []
        folder = self
        while folder._above is not None:
            names.append(folder._name)
            folder = folder._above
        return names[::-1]

    @property
    def root(self) -> "NtfsFolder":
        """The volume's root."""
        folder = self
        while folder._above is not None:
            folder = folder._above
        return folder

    def attributes(self) -> Attributes:
        file = self.file()
        return self._attributes(file, read_standard(file), FOLDER_MODE, 0, 0)

    def lookup(self, name: bytes) -> Node:
        units = find_name(name)
        index = self._index()
        found = index.find(units) if units is not None else None
        if found is not None and self._shown(found) and show_name(found.name) == name:
            return self._node(found, name)
        if escaped(name):
            for entry in index.entries():
                if show_name(entry.name) == name and self._shown(entry):
                    return self._node(entry, name)
        stream = self._stream(name) if b":" in name else None
        if stream is None:
            raise NotFoundError("no such file or folder")
        return stream

    def find(self, name: bytes) -> Entry | None:
        """The entry that Windows means by a name: in any case by $UpCase, or an 8.3 alias.

        Raises:
            CorruptError: damage on the way, or damage that may hide the name.
        """
        units = find_name(name)
        found = self._index().find_alike(units) if units is not None else None
        if found is not None and found.namespace == NAMESPACE_DOS:
            found = self._in_full(found)
        return self._entry(found) if found is not None and self._shown(found) else None

    def _in_full(self, alias: IndexEntry) -> IndexEntry | None:
        """The entry of the name that an alias stands beside."""
        for piece in self.parts.table.file(alias.reference).pieces(FILE_NAME):
            value = piece.value or b""
            parent, namespace = int.from_bytes(value[:6], "little"), value[65:66]
            if parent == self.number and namespace not in (b"", bytes([NAMESPACE_DOS])):
                return self._index().find(value[66 : 66 + 2 * value[64]])
        return None

    def entries(self) -> Iterator[Entry]:
        for found in self._listed():
            yield from self._entries(found)

    def entries_with_attributes(self) -> Iterator[Sequence[Listed]]:
        for found in in_parts(chain.from_iterable(self._listed()), TOGETHER):
            together = len(found) >= TOGETHER_MIN
            attributes = survey(self.parts.table, found) if together else [None] * len(found)
            names = show_names([entry.name for entry in found])
            yield list(zip(names, map(self._node, found, names), attributes, strict=True))

    def leaf_again(self, identity: bytes) -> Node | None:
        own, reference = identity[:-REFERENCE_BYTES], identity[-REFERENCE_BYTES:]
        if own == self.parts.identity:
            return NtfsFile(self.parts, int.from_bytes(reference, "big"))
        return None

    def _listed(self) -> Iterator[list[IndexEntry]]:
        """What a listing shows, in parts."""
        for found in self._index().parts():
            all_shown = self.number != ROOT_NUMBER
            yield found if all_shown else [entry for entry in found if self._shown(entry)]

    def _entries(self, found: Sequence[IndexEntry]) -> Iterator[Entry]:
        names = show_names([entry.name for entry in found])
        return map(Entry, names, map(self._node, found, names))

    def _computed(self) -> Mapping[bytes, Callable[[], bytes]]:
        return {VOLUME_STATE: self._state} if self.number == ROOT_NUMBER else {}

    def _state(self) -> bytes:
        hibernation = None
        with suppress(CorruptError, UnsupportedError):
            found = self.find(HIBERNATION_FILE)
            if found is not None and isinstance(found.node, NtfsFile):
                hibernation = found.node.open()
        return read_state(self.parts.table, hibernation)

    def _index(self) -> Index:
        file = self.file()
        reparse = read_reparse(file)
        if reparse is not None and reparse.tag in LINK_TAGS:
            raise refuse(file, reparse.tag)
        expected = self._above.number if self._above is not None else self.number
        for name in file.pieces(FILE_NAME):
            parent = int.from_bytes((name.value or b"")[:6], "little")
            if parent != expected:
                raise CorruptError(
                    f"{file.record.where}: expected its parent {expected}, got {parent}"
                )
        return self.parts.indexes.of(self._reference)

    def _shown(self, entry: IndexEntry) -> bool:
        if self.number != ROOT_NUMBER:
            return True
        number = entry.reference & NUMBER_MASK
        return number >= USER_NUMBER_MIN or (self.parts.show_system and number != ROOT_NUMBER)

    def _stream(self, name: bytes) -> NtfsStream | None:
        """The stream that `NAME:STREAM` means, if there is one."""
        base, _, stream = name.partition(b":")
        units, stream_units = find_name(base), find_name(stream)
        found = self._index().find(units) if units and stream_units else None
        if found is None or stream_units is None or not self._shown(found):
            return None
        file = self.parts.table.file(found.reference)
        if stream_units not in file.names(DATA):
            return None
        return NtfsStream(self.parts, found.reference, stream_units, of_folder=file.record.folder)

    def _entry(self, entry: IndexEntry) -> Entry:
        name = show_name(entry.name)
        return Entry(name, self._node(entry, name))

    def _node(self, entry: IndexEntry, name: bytes) -> Node:
        """The node of an entry, whose name is shown so."""
        flags = entry.flags
        if flags & FLAG_REPARSE and entry.tag in LINK_TAGS:
            return NtfsLink(self.parts, entry.reference, self, of_folder=bool(flags & FLAG_FOLDER))
        if flags & FLAG_FOLDER:
            return NtfsFolder(self.parts, entry.reference, self, name)
        return NtfsFile(self.parts, entry.reference)


class NtfsLink(NtfsNode, Link):
    """A symbolic link or junction, as its folder lists it."""

    def __init__(
        self, parts: Parts, reference: int, folder: NtfsFolder, *, of_folder: bool
    ) -> None:
        super().__init__(parts, reference)
        self._holder = folder
        self._folder = of_folder

    @property
    def identity(self) -> bytes:
        # The same link reads otherwise in another folder, so hard links to it are not one node.
        return super().identity + b"@" + self._holder.identity[-8:]

    def attributes(self) -> Attributes:
        file = self.file()
        try:
            size = len(self.target())
        except (CorruptError, UnsupportedError):
            size = 0
        return self._attributes(file, read_standard(file), LINK_MODE, size, 0)

    def target(self) -> bytes:
        file = self.file()
        reparse = read_reparse(file)
        if reparse is None or reparse.tag not in LINK_TAGS:
            raise CorruptError(f"{file.record.where}: expected a link, found none")
        target = parse_target(reparse, file.record.where)
        start = [] if target.rooted else self._holder.path()
        names, there = self._resolve(start, target, file.record.where)
        if target.drive and not there:
            raise UnsupportedError(
                f"{file.record.where}: a link to {target.drive}, where this volume has no such path"
            )
        path = _relative(self._holder.path(), names)
        if len(path) > TARGET_BYTES_MAX:
            raise UnsupportedError(f"{file.record.where}: a link to a path of {len(path)} bytes")
        return path

    def _resolve(
        self, start: Sequence[bytes], target: Target, where: str
    ) -> tuple[list[bytes], bool]:
        """The names from the root to the target, and whether there is something."""
        names = list(start)
        for name in target.names:
            if name != _UP:
                names.append(name)
            elif names:
                names.pop()
            else:
                raise UnsupportedError(f"{where}: a link to above its volume's root")
        node: Node | None = self._holder.root
        for position, name in enumerate(names):
            if isinstance(node, Link):
                break  # what is behind a link is the reader's business
            found = node.find(name) if isinstance(node, NtfsFolder) else None
            node = found.node if found is not None else None
            names[position] = found.name if found is not None else name
        return names, node is not None


def _relative(folder: Sequence[bytes], names: Sequence[bytes]) -> bytes:
    """The path from a folder to what `names` lead to, both from the root."""
    common = 0
    while common < min(len(folder), len(names)) and folder[common] == names[common]:
        common += 1
    steps = [_UP] * (len(folder) - common) + list(names[common:])
    return b"/".join(steps) or b"."
