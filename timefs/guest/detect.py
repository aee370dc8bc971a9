"""Detection: what a captured file or a volume is, by its content and never by its name.

Defined here and only here: `decode`, from container to disk, and `file_system`, the name of what a
volume holds. Used by timefs.guest.disktree and the time tree. Pure functions; thread-safe.
"""

from typing import Final

from store.errors import CorruptError, UnsupportedError
from store.image import Image
from timefs.guest import partitions, vhd, vhdx

NTFS: Final = "NTFS"

_CONTAINERS: Final = (
    (0, b"QFI\xfb", "QCOW2"),
    (0, b"KDMV", "VMDK"),
    (0, b"COWD", "VMDK"),
    (0, b"# Disk DescriptorFile", "VMDK descriptor"),
    (0, bytes.fromhex("bebafeca00000000"), "seSparse VMDK"),
    (64, bytes.fromhex("7f10dabe"), "VDI"),
    (0, b"LUKS\xba\xbe", "LUKS"),
)

_FILE_SYSTEMS: Final = (
    (3, b"NTFS    ", NTFS),
    (3, b"-FVE-FS-", "BitLocker, locked"),
    (3, b"EXFAT   ", "exFAT"),
    (3, b"ReFS\0\0\0\0", "ReFS"),
    (0, b"LUKS\xba\xbe", "LUKS, locked"),
    (0, b"XFSB", "XFS"),
    (512, b"LABELONE", "LVM2"),
    (1080, b"\x53\xef", "ext2/3/4"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (82, b"FAT32   ", "FAT32"),
    (54, b"FAT16   ", "FAT16"),
    (54, b"FAT12   ", "FAT12"),
    (4086, b"SWAPSPACE2", "swap"),
)


def decode(container: Image) -> Image:
    """The disk that a captured file holds; the file itself where it is a raw one.

    Raises:
        CorruptError: it is of a known format and damaged.
        UnsupportedError: it is of a known format that is not decoded.
    """
    if container.read(0, 8) == vhdx.SIGNATURE:
        return vhdx.open_vhdx(container)
    if vhd.is_vhd(container):
        return vhd.open_vhd(container)
    for offset, magic, name in _CONTAINERS:
        if container.read(offset, len(magic)) == magic:
            raise UnsupportedError(f"{name}: this version does not decode it")
    return container


def file_system(volume: Image) -> str | None:
    """The name of the file system or container that a volume begins with, if it is known."""
    for offset, magic, name in _FILE_SYSTEMS:
        if volume.read(offset, len(magic)) == magic:
            return name
    return None


def has_volumes(file: Image) -> bool:
    """Whether there is anything to show inside a captured file; damage is something to show."""
    try:
        disk = decode(file)
        return file_system(disk) is not None or bool(partitions.partitions(disk))
    except (CorruptError, UnsupportedError):
        return True
