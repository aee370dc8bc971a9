"""LVM2: physical volumes, the groups they form across disks, and logical volumes as images.

Used by timefs.guest.filesystems and timefs.guest.disktree: `label_place`, `label_is_whole`,
`read_physical_volume`, `group_name` and `logical_volumes`.
"""

from timefs.guest.lvm.group import LogicalVolume, group_name, logical_volumes
from timefs.guest.lvm.label import (
    PhysicalVolume,
    label_is_whole,
    label_place,
    read_physical_volume,
)

__all__ = [
    "LogicalVolume",
    "PhysicalVolume",
    "group_name",
    "label_is_whole",
    "label_place",
    "logical_volumes",
    "read_physical_volume",
]
