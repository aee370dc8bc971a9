"""LVM2: physical volumes, the groups they form across disks, and logical volumes as images.

Used by timefs.guest.detect and timefs.guest.disktree: `is_physical_volume`, `read_physical_volume`,
`group_name` and `logical_volumes`.
"""

from timefs.guest.lvm.group import LogicalVolume, group_name, logical_volumes
from timefs.guest.lvm.label import PhysicalVolume, is_physical_volume, read_physical_volume

__all__ = [
    "LogicalVolume",
    "PhysicalVolume",
    "group_name",
    "is_physical_volume",
    "logical_volumes",
    "read_physical_volume",
]
