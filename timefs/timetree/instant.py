"""What one instant's folder shows: captured files, and what is inside those that are disks.

Defined here and only here: `InstantView` and the rule of its names. Used by the folder of an
instant. Thread-safe.

A captured file's own name always wins. A disk `disk.qcow2` is shown as `disk/` (its volume),
`disk.d/` (its partitions), `disk.raw`, `disk.vhdx` and `disk.vhd` (looked up, not listed; but what
was captured as a disk is listed as `disk.vhdx`). Where a captured file has that name, or two disks
have one stem, the full name serves instead: `disk.qcow2.d/`, `disk.qcow2.raw` and so on, which can
always be looked up; `disk/` is then not there. `@volumes/` holds the logical volumes of groups that
lie on these disks, together or alone.
"""

from collections.abc import Iterator
from stat import S_IFREG
from typing import Final

from store.budget import spend
from store.errors import NotFoundError, TimefsError
from store.history import FileKind, Instant
from store.image import Image
from timefs.timetree.disks import FILE_FORMS, Form
from timefs.timetree.guest import groups_folder, guest_folder
from timefs.timetree.opened import Captured, Opened
from timefs.tree import Attributes, Entry, Leaf, Node

VOLUMES: Final = b"@volumes"
"""The folder of the volumes that lie on groups of disks."""


def file_name(name: str) -> bytes:
    """A name of the store as the kernel sees it."""
    return name.encode(errors="surrogateescape")


def machine_name(name: bytes) -> str:
    """A name of the kernel as the store knows it."""
    return name.decode(errors="surrogateescape")


def stem(name: bytes) -> bytes:
    """A name without its suffix: all before the last dot, unless nothing is."""
    before, _, _ = name.rpartition(b".")
    return before if before.strip(b".") else name


class CapturedFile(Leaf):
    """A captured file, byte for byte."""

    def __init__(self, opened: Opened, captured: Captured) -> None:
        self._opened = opened
        self._captured = captured

    @property
    def identity(self) -> bytes:
        return self._captured.identity

    def attributes(self) -> Attributes:
        return self._attributes(max(0, self._captured.state.size))  # a lost size opens as EIO

    def _attributes(self, size: int) -> Attributes:
        """A disk takes at most what its container takes, so that copies of it stay sparse."""
        time_ns = self._captured.state.changed_ns
        allocated_bytes = min(size, max(0, self._captured.state.size))
        times = (time_ns, time_ns, time_ns, time_ns)
        return Attributes(S_IFREG | 0o444, size, allocated_bytes, 1, *times)

    def open(self) -> Image:
        return self._opened.image(self._captured)


class ShownDisk(CapturedFile):
    """The decoded disk of a captured file, raw or in a container made on read."""

    def __init__(self, opened: Opened, captured: Captured, form: Form) -> None:
        super().__init__(opened, captured)
        self._form = form

    @property
    def identity(self) -> bytes:
        return self._opened.disk_identity(self._captured) + b"\0" + self._form.name.encode()

    def attributes(self) -> Attributes:
        return self._attributes(self.open().size)

    def open(self) -> Image:
        return self._opened.shown(self._captured, self._form)


class InstantView:
    """The names of one instant."""

    def __init__(self, opened: Opened, instant: Instant) -> None:
        self._opened = opened
        self._captured = {file_name(each.state.name): each for each in opened.files(instant)}
        self._by_stem: dict[bytes, list[Captured]] = {}
        for name, captured in self._captured.items():
            self._by_stem.setdefault(stem(name), []).append(captured)

    def lookup(self, name: bytes) -> Node:
        """The node of a name, listed or not.

        Raises:
            NotFoundError: there is none.
            TimefsError: a captured file that may be meant cannot be read.
        """
        if name in self._captured:
            return CapturedFile(self._opened, self._captured[name])
        if name == VOLUMES and (groups := self._groups()) is not None:
            return groups
        found = self._disk_of(name)
        if found is None:
            raise NotFoundError("no such file at this instant")
        captured, form = found
        return self._node(captured, form)

    def _node(self, captured: Captured, form: Form) -> Node:
        if form not in FILE_FORMS:
            return guest_folder(self._opened, captured, form)
        is_container = self._opened.disk(captured) is not self._opened.image(captured)
        if form is Form.RAW and not is_container:
            return CapturedFile(self._opened, captured)
        return ShownDisk(self._opened, captured, form)

    def entries(self) -> Iterator[Entry]:
        """What a listing shows; a file that cannot be read hides only what is inside it."""
        for name, captured in self._captured.items():
            yield Entry(name, CapturedFile(self._opened, captured))
            try:
                shown = self._shown(name, captured)
            except TimefsError:
                spend(0)
                continue
            for shown_name, form in shown:
                yield Entry(shown_name, self._node(captured, form))

        groups = self._groups() if VOLUMES not in self._captured else None
        if groups is not None:
            yield Entry(VOLUMES, groups)

    def _groups(self) -> Node | None:
        """The folder of the logical volumes of this instant's disks, if there are groups."""
        disks = self._opened.group_disks(self._captured.values())
        return groups_folder(self._opened, disks) if disks.captured else None

    def _shown(self, name: bytes, captured: Captured) -> list[tuple[bytes, Form]]:
        """The names by which a captured file's inside is listed: one for each form it has."""
        forms: list[Form] = []
        if captured.state.kind is FileKind.DISK:
            forms.append(Form.VHDX)
        if self._opened.nature(captured).has_volumes:
            forms += (Form.VOLUME, Form.PARTITIONS)
        shown: list[tuple[bytes, Form]] = []
        for form in forms:
            for base in (stem(name), name):
                if self._disk_of(base + form.value) == (captured, form):
                    shown.append((base + form.value, form))
                    break
        return shown

    def _disk_of(self, name: bytes) -> tuple[Captured, Form] | None:
        """Which disk a name shows, and how."""
        if name in self._captured:
            return None
        for form in Form:
            if not name.endswith(form.value):
                continue
            captured = self._owner(name.removesuffix(form.value), form)
            if captured is not None:
                return captured, form
        return None

    def _owner(self, base: bytes, form: Form) -> Captured | None:
        """The disk that has `base` as its stem alone, or as its full name."""
        disks = [each for each in self._by_stem.get(base, []) if self._opened.nature(each).is_disk]
        named = self._captured.get(base)
        if len(disks) != 1 and named is not None and form is not Form.VOLUME:
            disks = [named] if self._opened.nature(named).is_disk else []
        if len(disks) != 1:
            return None
        return disks[0] if form in FILE_FORMS or self._opened.nature(disks[0]).has_volumes else None
