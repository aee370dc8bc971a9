"""What is inside disks, as folders: the volume itself, a folder a partition, or a logical volume.

Defined here and only here: `volume_folder`, `partitions_folder`, `refusal_folder`, `group_folder`
and `has_physical_volumes`. Used by the time tree. Volumes are opened when they are looked at.
Thread-safe.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from store.errors import CorruptError, UnsupportedError
from store.image import Image
from timefs.guest.contents import Contents, contents, is_nestable, partition_contents
from timefs.guest.detect import disk_contents
from timefs.guest.filesystems import LVM
from timefs.guest.lvm import LogicalVolume, PhysicalVolume, logical_volumes, read_physical_volume
from timefs.guest.partitions import partition_image
from timefs.guest.slot import (
    DiskFolder,
    LogicalSlot,
    Place,
    Slot,
    disk_slots,
    part_identity,
    volume_or_folder,
)
from timefs.tree import Folder

GROUPS_DEEP_MAX: Final = 2
"""Groups on disks, and groups of their guests on disks that are logical volumes of those."""


GUEST_DISKS_MAX: Final = 256
"""Logical volumes that are asked for such disks."""

VOLUMES_MAX: Final = 1024
"""Logical volumes that are shown of an instant."""


def volume_folder(disk: Image, identity: bytes, time_ns: int) -> Folder:
    """The guest's volume when one alone remains beside those for booting, else one folder each."""
    slots = disk_slots(disk, disk_contents(disk), identity, time_ns)
    return volume_or_folder(slots, identity, time_ns)


def partitions_folder(disk: Image, identity: bytes, time_ns: int) -> Folder:
    """Every partition as `pN-LABEL`, by whatever it holds: the path that never changes meaning."""
    slots = disk_slots(disk, disk_contents(disk), identity, time_ns)
    return DiskFolder(identity + b"\0partitions", slots, time_ns)


def refusal_folder(reason: str, identity: bytes, time_ns: int) -> Folder:
    """What stands for the volumes of a disk that is not decoded: a line that says why."""
    place = Place(b"p0", identity + b"\0p0", time_ns)
    return DiskFolder(identity + b"\0refusal", [Slot(place, reason)], time_ns)


def has_physical_volumes(disk: Image) -> bool:
    """Whether a disk has a part in groups of volumes, which `group_folder` shows."""
    return any(True for _ in _physical(disk, disk_contents(disk)))


def group_folder(disks: Iterable[Image], identity: bytes, time_ns: int) -> Folder:
    """The logical volumes of all groups on disks of one instant, as `VG-LV` each.

    A hyphen in a name is doubled, as in the guest's own /dev/mapper; groups of one name bear the
    start of their identifiers too.
    """
    found = _all_logical([(disk, disk_contents(disk)) for disk in disks])
    volumes = found[:VOLUMES_MAX]
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
        place = Place(name.encode(errors="replace"), own, time_ns, nestable=True)
        slots.append(LogicalSlot(place, _logical_image(volume), _nested_contents))
    if len(found) > VOLUMES_MAX:
        reason = f"{len(found) - VOLUMES_MAX} more volumes: this version shows {VOLUMES_MAX}"
        slots.append(Slot(Place(b"@more", identity + b"\0more", time_ns), reason))
    return DiskFolder(identity + b"\0groups", slots, time_ns)


def _nested_contents(volume: Image) -> Contents:
    return contents(volume, nested=True)


def _logical_image(volume: LogicalVolume) -> Callable[[], Image]:
    def image() -> Image:
        if volume.image is None:
            raise UnsupportedError(volume.problem)
        return volume.image

    return image


def _all_logical(disks: Sequence[tuple[Image, Contents]]) -> list[LogicalVolume]:
    """The volumes of the groups on disks, then of those on disks that are such volumes."""
    volumes: list[LogicalVolume] = []
    for depth in range(GROUPS_DEEP_MAX):
        found: list[PhysicalVolume] = []
        for disk, inside in disks:
            for volume in _physical(disk, inside, nested=depth > 0):
                with suppress(
                    CorruptError, UnsupportedError
                ):  # the partition's own entry says what is wrong
                    found.append(read_physical_volume(volume))
        if not found:
            break
        logical = logical_volumes(found)
        volumes += logical
        images = [each.image for each in logical if each.image is not None][:GUEST_DISKS_MAX]
        disks = [(image, _nested_contents(image)) for image in images]
    return volumes


def _physical(disk: Image, inside: Contents, *, nested: bool = False) -> Iterator[Image]:
    """What belongs to a group of volumes: the disk itself, partitions, and theirs."""
    if inside.partitions is None:
        if inside.found is not None and inside.found.name == LVM:
            yield disk
        return
    for partition in inside.partitions:
        with suppress(CorruptError, UnsupportedError):
            volume = partition_image(disk, partition)
            nestable = is_nestable(partition) and not nested
            within = partition_contents(volume, partition, table=nestable)
            yield from _physical(volume, within, nested=True)
