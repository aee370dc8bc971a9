"""What is inside a disk, as folders: the volume itself, or one folder a partition.

Defined here and only here: `volume_folder`, `partitions_folder` and the one-line files that stand
for what cannot be shown. Used by the time tree. Volumes are opened when they are looked at.
Thread-safe.
"""

import threading
from collections.abc import Iterator
from stat import S_IFDIR, S_IFREG
from typing import Final

from store.errors import CorruptError, NotFoundError, UnsupportedError
from store.image import BytesImage, Image
from timefs.guest.detect import file_system
from timefs.guest.filesystems import open_file_system
from timefs.guest.partitions import Partition, partition_image, partitions
from timefs.tree import Attributes, Entry, Folder, Leaf, Node

SYSTEM_RESERVED: Final = "System Reserved"
"""Label of the boot volume that Windows makes on MBR disks."""

LABEL_CHARACTERS_MAX: Final = 64


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


def _slots(disk: Image, identity: bytes, time_ns: int) -> "list[Slot]":
    if file_system(disk) is not None:
        whole = Partition(0, "", False, 0, disk.size)
        return [Slot(disk, whole, identity, time_ns)]
    return [Slot(disk, partition, identity, time_ns) for partition in partitions(disk)]


class Slot:
    """A partition and what was found in it, looked into once."""

    def __init__(self, disk: Image, partition: Partition, identity: bytes, time_ns: int) -> None:
        self._disk = disk
        self._partition = partition
        self._identity = identity + b"\0p%d" % partition.number
        self._time_ns = time_ns
        self._lock = threading.Lock()
        self._found: tuple[Folder | None, str, str] | None = None

    @property
    def beside(self) -> bool:
        """Whether it is there for booting, recovery or swapping."""
        return self._partition.beside or self._look()[1] == SYSTEM_RESERVED

    @property
    def number(self) -> bytes:
        return b"p%d" % self._partition.number

    def _look(self) -> tuple[Folder | None, str, str]:
        """The volume's root if it can be shown, its label, and else why not."""
        with self._lock:
            if self._found is None:
                try:
                    self._found = self._open()
                except (CorruptError, UnsupportedError) as error:
                    self._found = (None, self._partition.name, str(error))
            return self._found

    def _open(self) -> tuple[Folder | None, str, str]:
        volume = (
            partition_image(self._disk, self._partition) if self._partition.number else self._disk
        )
        found = file_system(volume)
        opened = open_file_system(found, volume, self._identity) if found else None
        if opened is not None:
            return opened.root, opened.label or self._partition.name, ""
        reason = f"{found}: this version does not show it" if found else "nothing known is in it"
        return None, self._partition.name, reason

    def root(self) -> Folder | None:
        """The volume's root folder, if it can be shown."""
        return self._look()[0]

    def entry(self) -> Entry:
        """`pN-LABEL`, or `pN-LABEL.unsupported` with the reason in it."""
        root, label, reason = self._look()
        clean = "".join(c for c in label if c.isprintable() and c != "/")[:LABEL_CHARACTERS_MAX]
        name = self.number + (b"-" + clean.encode(errors="replace") if clean else b"")
        if root is not None:
            return Entry(name, root)
        return Entry(
            name + b".unsupported",
            Reason(self._identity, f"{self.number.decode()}: {reason}\n", self._time_ns),
        )


class DiskFolder(Folder):
    """One entry a partition."""

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
        bare = name.partition(b"-")[0].partition(b".")[0]
        for slot in self._slots:
            if slot.number == bare:
                entry = slot.entry()
                shown = slot.root() is not None
                if name == entry.name or (name == bare and shown):
                    return entry.node
        raise NotFoundError("no such partition")

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
