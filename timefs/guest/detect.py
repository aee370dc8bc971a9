"""Detection: what a captured file or a volume is, by its content and never by its name.

Defined here and only here: `decode`, from container to disk, `as_vhdx`, `as_vhd` and `as_vmdk`,
from disk to container, and `file_system`, the name of what a volume holds. Used by
timefs.guest.disktree and the time tree. Pure functions; thread-safe.
"""

import uuid
from typing import Final

from store.errors import CorruptError, UnsupportedError
from store.image import Image
from timefs.guest import partitions, qcow2, vdi, vhd, vhdx, vmdk
from timefs.guest.lvm import is_physical_volume
from timefs.guest.siblings import Find, Siblings, file_names, no_siblings
from timefs.guest.vhd_made import made_vhd
from timefs.guest.vhdx_made import made_vhdx
from timefs.guest.vmdk_made import made_vmdk

NTFS: Final = "NTFS"
LVM: Final = "LVM2"
EXT: Final = "ext2/3/4"
XFS: Final = "XFS"
EXFAT: Final = "exFAT"
FAT32: Final = "FAT32"
FAT16: Final = "FAT16"
FAT12: Final = "FAT12"
SECTOR_BYTES: Final = 512

_OLD_VMDK: Final = b"COWD"

_FILE_SYSTEMS: Final = (
    (3, b"NTFS    ", NTFS),
    (3, b"-FVE-FS-", "BitLocker, locked"),
    (3, b"EXFAT   ", EXFAT),
    (3, b"ReFS\0\0\0\0", "ReFS"),
    (0x1A8, uuid.UUID("4967d63b-2e29-4ad8-8399-f6a339e3d001").bytes_le, "BitLocker To Go, locked"),
    (0, b"LUKS\xba\xbe", "LUKS, locked"),
    (0, b"SPACEDB ", "Storage Spaces"),
    (0, b"XFSB", XFS),
    (1080, b"\x53\xef", EXT),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (82, b"FAT32   ", FAT32),
    (54, b"FAT16   ", FAT16),
    (54, b"FAT12   ", FAT12),
    (4086, b"SWAPSPACE2", "swap"),
    (4096, bytes.fromhex("fc4e2ba9"), "Linux software RAID"),
)


def decode(container: Image, find: Find = no_siblings) -> Image:
    """The disk that a captured file holds; the file itself where it is a raw one.

    Raises:
        CorruptError: it is of a known format and damaged, or a file it stands on is missing.
        UnsupportedError: it is of a known format that is not decoded.
    """
    return _decode(container, Siblings(find, _decode))


def _decode(container: Image, siblings: Siblings) -> Image:
    magic = container.read(0, 8)
    if magic == vhdx.SIGNATURE:
        return vhdx.open_vhdx(container, siblings)
    if magic[:4] == qcow2.MAGIC:
        return qcow2.open_qcow2(container, siblings)
    if vmdk.is_vmdk(container):
        return vmdk.open_vmdk(container, siblings)
    if vdi.is_vdi(container):
        return vdi.open_vdi(container)
    if vhd.is_vhd(container):
        return vhd.open_vhd(container, siblings)
    if magic[:4] == _OLD_VMDK:
        raise UnsupportedError("VMDK of an old ESX snapshot: this version does not decode it")
    return container


def references(container: Image) -> list[str]:
    """The names of other files that the disk in a container may directly stand on.

    Raises:
        CorruptError: it is of a known format and damaged.
        UnsupportedError: it is of a known format that is not decoded.
    """
    if container.read(0, 8) == vhdx.SIGNATURE:
        paths = vhdx.references(container)
    elif container.read(0, 4) == qcow2.MAGIC:
        paths = qcow2.references(container)
    elif vmdk.is_vmdk(container):
        paths = vmdk.references(container)
    else:
        paths = vhd.references(container)
    return [name for path in paths for name in file_names(path)]


def sector_bytes(disk: Image) -> int:
    """The size of the sectors by which the guest addresses a decoded disk."""
    if isinstance(disk, vhdx.Vhdx):
        return disk.sector_bytes
    return partitions.gpt_sector_bytes(disk) or SECTOR_BYTES


def disk_partitions(disk: Image) -> list[partitions.Partition]:
    """The partitions of a decoded disk, in sectors of its own size.

    Raises:
        CorruptError: its table is damaged in all copies.
    """
    return partitions.partitions(disk, sector_bytes(disk))


def as_vhdx(disk: Image, identity: bytes) -> Image:
    """A disk as a VHDX file; the same identity gives the same identifiers in it."""
    return made_vhdx(disk, identity, sector_bytes(disk))


def as_vhd(disk: Image, identity: bytes) -> Image:
    """A disk as a fixed VHD file, likewise.

    Raises:
        UnsupportedError: a VHD cannot hold the disk.
    """
    _expect_small_sectors(disk, "VHD")
    return made_vhd(disk, identity)


def as_vmdk(disk: Image, identity: bytes) -> Image:
    """A disk as a sparse VMDK file, likewise.

    Raises:
        UnsupportedError: a VMDK cannot hold the disk.
    """
    _expect_small_sectors(disk, "VMDK")
    return made_vmdk(disk, identity)


def _expect_small_sectors(disk: Image, form: str) -> None:
    if sector_bytes(disk) != SECTOR_BYTES:
        raise UnsupportedError(
            f"{form}: expected a disk with sectors of {SECTOR_BYTES} bytes, got larger ones"
        )


def file_system(volume: Image) -> str | None:
    """The name of the file system or container that a volume begins with, if it is known."""
    for offset, magic, name in _FILE_SYSTEMS:
        if volume.read(offset, len(magic)) == magic:
            return name
    return LVM if is_physical_volume(volume) else None


def has_volumes(file: Image, find: Find = no_siblings) -> bool:
    """Whether there is anything to show inside a captured file; damage is something to show."""
    try:
        disk = decode(file, find)
        return file_system(disk) is not None or bool(disk_partitions(disk))
    except (CorruptError, UnsupportedError):
        return True
