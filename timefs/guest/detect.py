"""Detection: what a captured file is, by its content and never by its name.

Defined here and only here: `decode`, from container to disk, `as_vhdx`, `as_vhd` and `as_vmdk`,
from disk to container, and `has_volumes`. Used by the time tree and timefs.guest.disktree. Pure
functions; thread-safe.
"""

from typing import Final

from store.errors import CorruptError, UnsupportedError
from store.image import Image
from timefs.guest import qcow2, signatures, vdi, vhd, vhdx, vmdk
from timefs.guest.contents import Contents, contents, is_disk_like
from timefs.guest.ends import Ends
from timefs.guest.siblings import Find, Siblings, file_names, no_siblings
from timefs.guest.vhd_made import made_vhd
from timefs.guest.vhdx_made import made_vhdx
from timefs.guest.vmdk_made import made_vmdk

SECTOR_BYTES: Final = 512

_OTHER_CONTAINERS: Final = signatures.Signatures(signatures.CONTAINERS)


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
    other = _OTHER_CONTAINERS.found(Ends(container))
    if other is not None:
        raise UnsupportedError(f"{other[0]}: this version does not decode it")
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


def disk_contents(disk: Image) -> Contents:
    """What a decoded disk holds, in sectors of its own size."""
    own_bytes = disk.sector_bytes if isinstance(disk, vhdx.Vhdx) else SECTOR_BYTES
    return contents(disk, own_bytes)


def sector_bytes(disk: Image) -> int:
    """The size of the sectors by which the guest addresses a decoded disk."""
    if isinstance(disk, vhdx.Vhdx):
        return disk.sector_bytes
    return disk_contents(disk).sector_bytes


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


def has_volumes(file: Image, find: Find = no_siblings) -> bool:
    """Whether there is anything to show inside a captured file; damage is something to show.

    So is a disk in which nothing is known; a file that need not be a disk has nothing inside.
    """
    try:
        disk = decode(file, find)
    except (CorruptError, UnsupportedError):
        return True
    if disk is not file or is_disk_like(file):
        return True
    inside = disk_contents(disk)
    return inside.found is not None or inside.partitions is not None
