"""Slots: the places for volumes on a disk, what each shows, and the folders of them.

Defined here and only here: `Slot`, `disk_slots`, `volume_or_folder` and `DiskFolder`. Used by
timefs.guest.disktree. A volume is opened when it is looked at, and looked at once. Thread-safe.

A partition or a logical volume may be a disk with a table of its own, of a guest's guest. It is
shown as disks are: `NAME/` is its volume or a folder of them, `NAME.d/` has all its partitions. A
table within that is not opened, so that no chain of tables costs more than two.
"""

import threading
from collections.abc import Callable, Iterator
from hashlib import blake2b
from stat import S_IFDIR, S_IFREG
from typing import Final, NamedTuple

from store.errors import CorruptError, NotFoundError, UnsupportedError
from store.image import BytesImage, Image
from timefs.guest.contents import Contents, is_nestable, partition_contents
from timefs.guest.ends import HEAD_BYTES, TAIL_BYTES
from timefs.guest.filesystems import LVM, Found
from timefs.guest.lvm import group_name, read_physical_volume
from timefs.guest.partitions import Partition, partition_image
from timefs.tree import Attributes, Entry, Folder, Leaf, Node

SYSTEM_RESERVED: Final = "System Reserved"
"""Label of the boot volume that Windows makes on MBR disks."""

LABEL_CHARACTERS_MAX: Final = 64
PART_DIGEST_BYTES: Final = 16
BLANK: Final = (
    f"blank: its first {HEAD_BYTES >> 10} KiB and its last {TAIL_BYTES >> 10} KiB are zeros; no "
    "partition table, no file system"
)
UNKNOWN: Final = (
    "nothing known is in it: it begins and ends like no partition table, file system, RAID, "
    "encryption or volume manager that this version can name"
)
NESTED_TOO_DEEP: Final = "a partition table within another's partition: this version opens two"


class Shown(NamedTuple):
    """What was found in a slot."""

    label: str
    root: Folder | None = None
    """The volume's root, or what stands for that of a disk."""
    partitions: Folder | None = None
    """Of a disk."""
    reason: str = ""
    """Why there is no root."""


class Place(NamedTuple):
    """What a slot is called, and what its nodes need to know."""

    name: bytes
    identity: bytes
    """What its nodes' identities begin with."""
    time_ns: int
    nestable: bool = False
    """Whether a table in it is opened."""


class Slot:
    """A place for a volume and what was found in it, looked into once."""

    def __init__(self, place: Place, reason: str = UNKNOWN) -> None:
        """Without a volume, all there is to show is the reason."""
        self.place: Final = place
        self._reason = reason
        self._lock = threading.Lock()
        self._shown: Shown | None = None

    @property
    def beside(self) -> bool:
        """Whether it is there for booting, recovery or swapping, or not at all any more."""
        return self.shown().label == SYSTEM_RESERVED

    def shown(self) -> Shown:
        """What is in it."""
        with self._lock:
            if self._shown is None:
                try:
                    self._shown = self._look()
                except (CorruptError, UnsupportedError) as error:
                    self._shown = Shown(self.own_label(), reason=str(error))
            return self._shown

    def own_label(self) -> str:
        """What it is called where its volume gives it no name."""
        return ""

    def _look(self) -> Shown:
        """Raises `CorruptError` or `UnsupportedError`, which then are the reason."""
        return Shown(self.own_label(), reason=self._reason)

    def entries(self) -> Iterator[Entry]:
        """`NAME-LABEL`; of a disk that with `.d` too; or that with `.unsupported` and why."""
        label, root, partitions, reason = self.shown()
        clean = label.replace("/", "-")
        clean = "".join(c for c in clean if c.isprintable())[:LABEL_CHARACTERS_MAX]
        name = self.place.name
        if clean:
            name += b"-" + clean.encode(errors="replace")
        if root is None:
            text = f"{self.place.name.decode(errors='replace')}: {reason}\n"
            leaf = Reason(self.place.identity, text, self.place.time_ns)
            yield Entry(name + b".unsupported", leaf)
            return
        yield Entry(name, root)
        if partitions is not None:
            yield Entry(name + b".d", partitions)


class VolumeSlot(Slot):
    """A slot of a volume that has yet to be looked into: a partition, or a logical volume."""

    def __init__(
        self,
        place: Place,
        volume: Callable[[], Image],
        inside: Callable[[Image], Contents],
    ) -> None:
        super().__init__(place)
        self._volume = volume
        self._inside = inside

    def _look(self) -> Shown:
        volume = self._volume()
        inside = self._inside(volume)
        if inside.partitions is not None:
            return self._disk(volume, inside)
        if inside.found is None:
            return Shown(self.own_label(), reason=BLANK if inside.blank else UNKNOWN)
        if inside.found.open is None:
            return Shown(self.own_label(), reason=_only_named(volume, inside.found))
        opened = inside.found.open(volume, self.place.identity)
        return Shown(self._label(opened.label), opened.root)

    def _label(self, of_volume: str) -> str:
        return of_volume or self.own_label()

    def _disk(self, disk: Image, inside: Contents) -> Shown:
        if not self.place.nestable:
            raise UnsupportedError(NESTED_TOO_DEEP)
        identity, time_ns = self.place.identity, self.place.time_ns
        slots = disk_slots(disk, inside, identity, time_ns, nested=True)
        return Shown(
            self.own_label(),
            volume_or_folder(slots, identity, time_ns),
            DiskFolder(identity + b"\0partitions", slots, time_ns),
        )


class LogicalSlot(VolumeSlot):
    """A logical volume; its name says enough."""

    def _label(self, of_volume: str) -> str:
        del of_volume
        return ""


class PartitionSlot(VolumeSlot):
    """A partition of a disk."""

    def __init__(self, place: Place, disk: Image, partition: Partition) -> None:
        def inside(volume: Image) -> Contents:
            return partition_contents(volume, partition)

        super().__init__(place, lambda: partition_image(disk, partition), inside)
        self._partition = partition
        self._beyond_bytes = partition.start + partition.length - disk.size

    @property
    def beside(self) -> bool:
        return self._partition.beside or super().beside

    def own_label(self) -> str:
        return self._partition.name

    def _look(self) -> Shown:
        shown = super()._look()
        if shown.root is None and self._beyond_bytes > 0:
            beyond = f"; the partition ends {self._beyond_bytes} bytes beyond its disk"
            return shown._replace(reason=shown.reason + beyond)
        return shown


class BeneathSlot(Slot):
    """What was on the disk before that which is shown, by its mark."""

    def __init__(self, place: Place, found: Found) -> None:
        reason = (
            f"{found.name}: a mark of it is left at byte {found.place}, beneath what is shown; it "
            "is not shown, because most likely it was there before"
        )
        super().__init__(place, reason)
        self._found = found

    @property
    def beside(self) -> bool:
        """An array's mark is not dismissed: its data may be elsewhere on the disk."""
        return not self._found.member

    def own_label(self) -> str:
        return self._found.name


def _only_named(volume: Image, found: Found) -> str:
    if found.name == LVM:
        group = group_name(read_physical_volume(volume))
        return f"LVM2: a part of group {group or 'unknown'}, whose volumes are in @volumes"
    return f"{found.name}: this version does not show it"


def part_identity(disk: bytes, *names: bytes) -> bytes:
    """What the identities of a part of a disk begin with.

    Always of one length, and another for other names, whatever a guest has put into them: so no
    node of one part can be taken for a node of another.
    """
    digest = blake2b(digest_size=PART_DIGEST_BYTES)
    for name in (disk, *names):
        digest.update(len(name).to_bytes(4, "big") + name)
    return b"part\0" + digest.digest()


def disk_slots(
    disk: Image, inside: Contents, identity: bytes, time_ns: int, *, nested: bool = False
) -> list[Slot]:
    """A slot a partition, or one for the whole, and one for what lies beneath."""
    slots: list[Slot] = []
    partitions = inside.partitions
    if partitions is None:
        place = Place(b"p0", part_identity(identity, b"p0"), time_ns)
        slots.append(VolumeSlot(place, lambda: disk, lambda _: inside))
    else:
        if not partitions:
            problem = "a partition table without partitions"
            partitions = [Partition(0, "", False, 0, 0, problem)]
        for partition in partitions:
            nestable = not nested and is_nestable(partition)
            name = b"p%d" % partition.number
            place = Place(name, part_identity(identity, name), time_ns, nestable)
            slots.append(PartitionSlot(place, disk, partition))
    for number, found in enumerate(inside.beneath):
        own = part_identity(identity, b"beneath%d" % number)
        slots.append(BeneathSlot(Place(b"p0", own, time_ns), found))
    return slots


def volume_or_folder(slots: list[Slot], identity: bytes, time_ns: int) -> Folder:
    """The one volume that remains beside those for booting, else a folder of them."""
    remaining = [slot for slot in slots if not slot.beside]
    if len(remaining) == 1:
        root = remaining[0].shown().root
        if root is not None:
            return root
    return DiskFolder(identity + b"\0volumes", remaining or slots, time_ns)


class DiskFolder(Folder):
    """The entries of slots."""

    def __init__(self, identity: bytes, slots: list[Slot], time_ns: int) -> None:
        self._identity = identity
        self._slots = slots
        self._time_ns = time_ns

    @property
    def identity(self) -> bytes:
        return self._identity

    def attributes(self) -> Attributes:
        times = (self._time_ns,) * 4
        return Attributes(S_IFDIR | 0o555, 0, 0, 2, *times)

    def lookup(self, name: bytes) -> Node:
        """A listed entry, or a volume by its slot's name alone."""
        for slot in self._slots:
            own = slot.place.name
            if not name.startswith(own) or name[len(own) :][:1] not in (b"", b"-", b"."):
                continue
            for entry in slot.entries():
                if entry.name == name:
                    return entry.node
            shown = slot.shown()
            for short, node in ((own, shown.root), (own + b".d", shown.partitions)):
                if name == short and node is not None:
                    return node
        raise NotFoundError("no such volume")

    def entries(self) -> Iterator[Entry]:
        for slot in self._slots:
            yield from slot.entries()


class Reason(Leaf):
    """A one-line file that says why something is not shown."""

    def __init__(self, identity: bytes, text: str, time_ns: int) -> None:
        self._identity = identity + b"\0unsupported"
        self._content = text.encode(errors="replace")
        self._time_ns = time_ns

    @property
    def identity(self) -> bytes:
        return self._identity

    def attributes(self) -> Attributes:
        size = len(self._content)
        times = (self._time_ns,) * 4
        return Attributes(S_IFREG | 0o444, size, size, 1, *times)

    def open(self) -> Image:
        return BytesImage(self._content)
