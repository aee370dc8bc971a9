"""What is inside disks, as folders: the volume itself, a folder a partition, or a logical volume.

Defined here and only here: `volume_folder`, `partitions_folder`, `group_folder` and the one-line
files that stand for what cannot be shown. Used by the time tree. Volumes are opened when they are
looked at. Thread-safe.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from stat import S_IFDIR, S_IFREG
from typing import Final

from store.errors import CorruptError, NotFoundError, UnsupportedError
from store.image import BytesImage, Image
from timefs.guest.detect import LVM, disk_partitions, file_system
from timefs.guest.filesystems import open_file_system
from timefs.guest.lvm import (
    LogicalVolume,
    PhysicalVolume,
    group_name,
    is_physical_volume,
    logical_volumes,
    read_physical_volume,
)
from timefs.guest.partitions import Partition, partition_image
from timefs.tree import Attributes, Entry, Folder, Leaf, Node

SYSTEM_RESERVED: Final = "System Reserved"
"""Label of the boot volume that Windows makes on MBR disks."""

LABEL_CHARACTERS_MAX: Final = 64
PART_DIGEST_BYTES: Final = 16


def volume_folder(disk: Image, identity: bytes, time_ns: int) -> Folder:
    """The guest's volume when one alone remains beside those for booting, else one folder each."""
    listed = _slots(disk, identity, time_ns)
    remaining = [slot for slot in listed if not slot.beside]
    if len(remaining) == 1:
        root = remaining[0].root()
        if root is not None:
            return root
    return DiskFolder(identity + b"\0volumes", remaining or listed, time_ns)


def partitions_folder(disk: Image, identity: bytes, time_ns: int) -> Folder:
    """Every partition as `pN-LABEL`, by whatever it holds: the path that never changes meaning."""
    return DiskFolder(identity + b"\0partitions", _slots(disk, identity, time_ns), time_ns)


def has_physical_volumes(disk: Image) -> bool:
    """Whether a disk has a part in groups of volumes, which `group_folder` shows."""
    return any(is_physical_volume(volume) for volume in _readable_volumes(disk))


def group_folder(disks: Iterable[Image], identity: bytes, time_ns: int) -> Folder:
    """The logical volumes of all groups on disks of one instant, as `VG-LV` each.

    A hyphen in a name is doubled, as in the guest's own /dev/mapper; groups of one name bear the
    start of their identifiers too.
    """
    found: list[PhysicalVolume] = []
    for disk in disks:
        for volume in _readable_volumes(disk):
            if is_physical_volume(volume):
                with suppress(CorruptError):  # the partition's own entry says what is wrong
                    found.append(read_physical_volume(volume))
    volumes = logical_volumes(found)
    groups = {(volume.group, volume.group_id) for volume in volumes}
    names = Counter(group for group, _ in groups)
    slots: list[Slot] = []
    for volume in volumes:
        group = volume.group.replace("-", "--")
        if names[volume.group] > 1:
            group += "~" + volume.group_id[:6]
        name = f"{group}-{volume.name.replace('-', '--')}".replace("/", "_")
        named = (volume.group_id.encode(errors="surrogatepass"),
                 volume.name.encode(errors="surrogatepass"))  # fmt: skip
        own = part_identity(identity, *named)
        slots.append(Slot(name.encode(errors="replace"), _logical_image(volume), own, time_ns))
    return DiskFolder(identity + b"\0groups", slots, time_ns)


def part_identity(disk: bytes, *names: bytes) -> bytes:
    """What the identities of a part of a disk begin with.

    Always of one length, and another for other names, whatever a guest has put into them: so no
    node of one part can be taken for a node of another.
    """
    digest = blake2b(digest_size=PART_DIGEST_BYTES)
    for name in (disk, *names):
        digest.update(len(name).to_bytes(4, "big") + name)
    return b"part\0" + digest.digest()


def _logical_image(volume: LogicalVolume) -> Callable[[], Image]:
    def image() -> Image:
        if volume.image is None:
            raise UnsupportedError(volume.problem)
        return volume.image

    return image


def _readable_volumes(disk: Image) -> Iterator[Image]:
    """The whole disk if it is a volume, else those of its partitions that lie within it."""
    if file_system(disk) is not None:
        yield disk
        return
    for partition in disk_partitions(disk):
        with suppress(CorruptError, UnsupportedError):
            yield partition_image(disk, partition)


def _slots(disk: Image, identity: bytes, time_ns: int) -> "list[Slot]":
    if file_system(disk) is not None:
        own = part_identity(identity, b"p0")
        return [Slot(b"p0", lambda: disk, own, time_ns, labelled=True)]
    slots: list[Slot] = []
    for partition in disk_partitions(disk):
        name = b"p%d" % partition.number
        own = part_identity(identity, name)
        slot = Slot(name, _partition_image(disk, partition), own, time_ns, labelled=True)
        slot.partition = partition
        slots.append(slot)
    return slots


def _partition_image(disk: Image, partition: Partition) -> Callable[[], Image]:
    return lambda: partition_image(disk, partition)


class Slot:
    """A place for a volume and what was found in it, looked into once."""

    partition: Partition | None = None
    """Which partition it is, if it is one."""

    def __init__(
        self,
        name: bytes,
        volume: Callable[[], Image],
        identity: bytes,
        time_ns: int,
        *,
        labelled: bool = False,
    ) -> None:
        self.name: Final = name
        self._volume = volume
        self._identity = identity
        self._time_ns = time_ns
        self._labelled = labelled
        self._lock = threading.Lock()
        self._found: tuple[Folder | None, str, str] | None = None

    @property
    def beside(self) -> bool:
        """Whether it is there for booting, recovery or swapping."""
        beside = self.partition is not None and self.partition.beside
        return beside or self._look()[1] == SYSTEM_RESERVED

    def _look(self) -> tuple[Folder | None, str, str]:
        """The volume's root if it can be shown, its label, and else why not."""
        with self._lock:
            if self._found is None:
                try:
                    self._found = self._open()
                except (CorruptError, UnsupportedError) as error:
                    self._found = (None, self._own_label(), str(error))
            return self._found

    def _own_label(self) -> str:
        return self.partition.name if self.partition is not None else ""

    def _open(self) -> tuple[Folder | None, str, str]:
        volume = self._volume()
        found = file_system(volume)
        opened = open_file_system(found, volume, self._identity) if found else None
        if opened is not None:
            return opened.root, opened.label or self._own_label(), ""
        reason = f"{found}: this version does not show it" if found else "nothing known is in it"
        if found == LVM:
            group = group_name(read_physical_volume(volume))
            reason = f"LVM2: a part of group {group or 'unknown'}, whose volumes are in @volumes"
        return None, self._own_label(), reason

    def root(self) -> Folder | None:
        """The volume's root folder, if it can be shown."""
        return self._look()[0]

    def entry(self) -> Entry:
        """`NAME-LABEL`, or `NAME-LABEL.unsupported` with the reason in it."""
        root, label, reason = self._look()
        clean = "".join(c for c in label if c.isprintable() and c != "/")[:LABEL_CHARACTERS_MAX]
        name = self.name
        if clean and self._labelled:
            name += b"-" + clean.encode(errors="replace")
        if root is not None:
            return Entry(name, root)
        text = f"{self.name.decode(errors='replace')}: {reason}\n"
        return Entry(name + b".unsupported", Reason(self._identity, text, self._time_ns))


class DiskFolder(Folder):
    """One entry a slot."""

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
        for slot in self._slots:
            if name.startswith(slot.name) and name[len(slot.name) :][:1] in (b"", b"-", b"."):
                entry = slot.entry()
                shown = slot.root() is not None
                if name == entry.name or (name == slot.name and shown):
                    return entry.node
        raise NotFoundError("no such volume")

    def entries(self) -> Iterator[Entry]:
        for slot in self._slots:
            yield slot.entry()


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
