"""Opened: the images, disks and volumes that a time tree has open.

Defined here and only here: `Opened`, `Captured`, `Guest` and `Nature`. Used by the nodes of the
time tree, which hold no bytes themselves, so that memory is bounded by these caches however many
instants are looked at. Thread-safe. What a reader holds stays open for it after it has left a
cache.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from store.budget import bounded_part, spend
from store.errors import CorruptError, CostError, TimefsError, UnsupportedError
from store.history import FileKind, FileState, History, Instant
from store.image import Image
from timefs.guest.siblings import Find
from timefs.timetree.cache import Cache
from timefs.timetree.disks import DiskParsers, Form
from timefs.timetree.failures import KnownFailures
from timefs.tree import Folder, Node

IMAGES_MAX: Final = 64
DISKS_MAX: Final = 32
GUESTS_MAX: Final = 32
GUEST_NODES_MAX: Final = 16384
"""Of each volume that is open, about 180 bytes each: as many as somebody copies at a time."""

NATURES_MAX: Final = 16384
NATURE_SECONDS: Final = 2.0
NATURE_BYTES: Final = 128 << 20
"""What finding out about one captured file may cost whoever lists an instant of many."""


class Captured(NamedTuple):
    """A captured file at an instant."""

    instant: Instant
    state: FileState

    @property
    def identity(self) -> bytes:
        """Equal wherever the file's bytes are the same."""
        machine = self.instant.machine.encode(errors="surrogateescape")
        state = self.state
        changed = (state.number, state.changed_epoch, state.changed_sequence)
        return b"file\0%b\0%d:%d:%d" % (machine, *changed)


class Nature(NamedTuple):
    """What a captured file is."""

    is_disk: bool
    has_volumes: bool
    has_physical_volumes: bool


TOO_COSTLY: Final = Nature(is_disk=True, has_volumes=True, has_physical_volumes=False)


class GroupDisks(NamedTuple):
    """The disks of an instant on which groups of volumes lie."""

    captured: tuple[Captured, ...]

    @property
    def time_ns(self) -> int:
        """Of the newest change to any of them."""
        return max((each.state.changed_ns for each in self.captured), default=0)


class Guest:
    """An opened disk's folder and those of its nodes that were met lately, by identity."""

    def __init__(self, root: Folder) -> None:
        self.root = root
        self.nodes: Cache[bytes, Node] = Cache(GUEST_NODES_MAX)


class Opened:
    """The bounded caches of one time tree, by identity."""

    def __init__(self, history: History, parsers: DiskParsers) -> None:
        self.failures = KnownFailures()
        self._history = history
        self._parsers = parsers
        self._images: Cache[bytes, Image] = Cache(IMAGES_MAX)
        self._disks: Cache[bytes, Image] = Cache(DISKS_MAX)
        self._guests: Cache[bytes, Guest] = Cache(GUESTS_MAX)
        self._natures: Cache[bytes, Nature] = Cache(NATURES_MAX)
        self._references: Cache[bytes, tuple[str, ...]] = Cache(NATURES_MAX)

    def files(self, instant: Instant) -> list[Captured]:
        """The captured files of an instant."""
        return [Captured(instant, state) for state in self._history.files(instant)]

    def image(self, captured: Captured) -> Image:
        """The captured file's bytes."""
        instant, state = captured
        return self._images.made(captured.identity, lambda: self._history.open(instant, state))

    def disk_identity(self, captured: Captured) -> bytes:
        """Equal wherever the disk in the file is the same: of the file and all it stands on."""
        if not self._names(captured):
            return captured.identity
        seen = {captured.identity}
        waiting = [captured]
        parts: list[bytes] = []
        while waiting:
            each = waiting.pop()
            for name in self._names(each):
                sibling = self._sibling(each.instant, name)
                parts.append(name.encode(errors="surrogateescape"))
                parts.append(sibling.identity if sibling else b"missing")
                if sibling and sibling.identity not in seen:
                    seen.add(sibling.identity)
                    waiting.append(sibling)
        digest = blake2b(b"\0\0".join(parts), digest_size=16).digest()
        return captured.identity + b"\0on\0" + digest

    def _names(self, captured: Captured) -> Sequence[str]:
        """The files that a captured one directly stands on; decoding says what is wrong with it."""
        if captured.state.kind is FileKind.DISK:
            return ()
        identity = captured.identity

        def references() -> tuple[str, ...]:
            return tuple(self._parsers.references(self.image(captured)))

        try:
            return self._references.made(
                identity, lambda: self.failures.tried((b"references", identity), references)
            )
        except (CorruptError, UnsupportedError):
            return ()

    def _sibling(self, instant: Instant, name: str) -> Captured | None:
        """The file of that name at an instant, or the only one if case does not matter."""
        files = {each.state.name: each for each in self.files(instant)}
        if name in files:
            return files[name]
        alike = [each for known, each in files.items() if known.casefold() == name.casefold()]
        return alike[0] if len(alike) == 1 else None

    def _find(self, instant: Instant) -> Find:
        def find(name: str) -> Image | None:
            sibling = self._sibling(instant, name)
            return None if sibling is None else self.image(sibling)

        return find

    def disk(self, captured: Captured) -> Image:
        """The disk in the captured file: of a container its content, else the file itself."""
        image = self.image(captured)
        if captured.state.kind is FileKind.DISK:
            return image
        find = self._find(captured.instant)
        identity = self.disk_identity(captured)

        def decoded() -> Image:
            return self._parsers.decode(image, find)

        return self._disks.made(identity, lambda: self.failures.tried((b"disk", identity), decoded))

    def shown(self, captured: Captured, form: Form) -> Image:
        """The disk as a file: raw, or in a container made on read."""
        disk = self.disk(captured)
        if form is Form.RAW:
            return disk
        identity = self.disk_identity(captured)
        parsers = self._parsers
        makers = {Form.VHDX: parsers.as_vhdx, Form.VHD: parsers.as_vhd, Form.VMDK: parsers.as_vmdk}
        make = makers[form]
        return self._disks.made(identity + b"\0" + form.name.encode(), lambda: make(disk, identity))

    def nature(self, captured: Captured) -> Nature:
        """What the captured file is; a disk that cannot be decoded has volumes, which then fail."""
        try:
            return self._natures.made(
                self.disk_identity(captured),
                lambda: bounded_part(NATURE_SECONDS, NATURE_BYTES, lambda: self._nature(captured)),
            )
        except CostError:
            spend(
                0
            )  # a file that costs too much is its own affair, unless the request is at its end
            return TOO_COSTLY

    def _nature(self, captured: Captured) -> Nature:
        image = self.image(captured)
        has_volumes = self._parsers.has_volumes(image, self._find(captured.instant))
        is_disk = captured.state.kind is FileKind.DISK or has_volumes
        has_physical = has_volumes and self._has_physical_volumes(captured)
        return Nature(is_disk or self.disk(captured) is not image, has_volumes, has_physical)

    def _has_physical_volumes(self, captured: Captured) -> bool:
        try:
            return self._parsers.has_physical_volumes(self.disk(captured))
        except (CorruptError, UnsupportedError):
            return False  # the disk's own folders say what is wrong with it

    def guest(self, captured: Captured, form: Form) -> Guest:
        """The folder of a disk in one of its forms."""
        key = self.disk_identity(captured) + b"\0" + form.name.encode()
        return self._opened_guest(key, lambda: self._guest_root(captured, form))

    def group_disks(self, files: Iterable[Captured]) -> GroupDisks:
        """Those of an instant's files that have parts in groups of volumes."""
        found: list[Captured] = []
        for captured in files:
            try:
                if self.nature(captured).has_physical_volumes:
                    found.append(captured)
            except TimefsError:
                spend(0)  # whatever needs it will say that it is missing
        return GroupDisks(tuple(found))

    def groups_identity(self, disks: GroupDisks) -> bytes:
        """Equal wherever the volumes of those disks are the same."""
        parts = b"\0\0".join(self.disk_identity(captured) for captured in disks.captured)
        return b"groups\0" + blake2b(parts, digest_size=16).digest()

    def groups(self, disks: GroupDisks) -> Guest:
        """The folder of the volumes of those disks' groups."""
        identity = self.groups_identity(disks)

        def root() -> Folder:
            parts = [self.disk(captured) for captured in disks.captured]
            return self._parsers.group_folder(parts, identity, disks.time_ns)

        return self._opened_guest(identity, root)

    def _opened_guest(self, identity: bytes, root: Callable[[], Folder]) -> Guest:
        question = (b"guest", identity)
        return self._guests.made(identity, lambda: Guest(self.failures.tried(question, root)))

    def _guest_root(self, captured: Captured, form: Form) -> Folder:
        parsers = self._parsers
        opens = parsers.volume_folder if form is Form.VOLUME else parsers.partitions_folder
        identity, time_ns = self.disk_identity(captured), captured.state.changed_ns
        try:
            disk = self.disk(captured)
        except UnsupportedError as error:
            return parsers.refusal_folder(str(error), identity, time_ns)
        return opens(disk, identity, time_ns)
