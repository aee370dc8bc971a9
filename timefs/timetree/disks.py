"""What a captured file that is a disk has inside, as the time tree needs it.

Defined here and only here: `DiskParsers`, what a time tree is given, `GUEST_DISKS`, all that timefs
has, and `Form`, the ways in which a disk is shown. Used by the time tree alone. No state.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Final, NamedTuple

from store.image import Image
from timefs.guest.detect import as_vhd, as_vhdx, as_vmdk, decode, has_volumes, references
from timefs.guest.disktree import (
    group_folder,
    has_physical_volumes,
    partitions_folder,
    refusal_folder,
    volume_folder,
)
from timefs.guest.siblings import Find
from timefs.tree import Folder


class Form(Enum):
    """How a disk is shown; the value is what is added to its stem or its name."""

    RAW = b".raw"
    """The decoded disk, byte for byte."""
    VHDX = b".vhdx"
    """The disk as a VHDX file, made on read."""
    VHD = b".vhd"
    """The disk as a fixed VHD file, made on read."""
    VMDK = b".vmdk"
    """The disk as a sparse VMDK file, made on read."""
    PARTITIONS = b".d"
    """A folder of all its partitions."""
    VOLUME = b""
    """The guest's volume itself, as a folder."""


FILE_FORMS: Final = (Form.RAW, Form.VHDX, Form.VHD, Form.VMDK)
"""Those that are files; the others are folders."""


class DiskParsers(NamedTuple):
    """What knows disk formats. All may be called from any thread and raise only our errors."""

    decode: Callable[[Image, Find], Image]
    """The disk in a container; the very same image if it is no container."""
    as_vhdx: Callable[[Image, bytes], Image]
    """`Form.VHDX` of a decoded disk, as a file; the bytes given make its identifiers."""
    as_vhd: Callable[[Image, bytes], Image]
    """`Form.VHD`, likewise."""
    as_vmdk: Callable[[Image, bytes], Image]
    """`Form.VMDK`, likewise."""
    references: Callable[[Image], Sequence[str]]
    """The names of files of the same instant that the disk in a container directly stands on."""
    has_volumes: Callable[[Image, Find], bool]
    """Whether a captured file has something inside to show; damage is something to show. Cheap."""
    volume_folder: Callable[[Image, bytes, int], Folder]
    """`Form.VOLUME` of a decoded disk; its nodes' identities begin with the bytes given, folders
    without a time of their own show the nanoseconds given."""
    partitions_folder: Callable[[Image, bytes, int], Folder]
    """`Form.PARTITIONS`, likewise."""
    refusal_folder: Callable[[str, bytes, int], Folder]
    """Stands for both where a disk is not decoded, and says why; identities and times likewise."""
    has_physical_volumes: Callable[[Image], bool]
    """Whether a decoded disk has a part in groups of volumes. Cheap."""
    group_folder: Callable[[Iterable[Image], bytes, int], Folder]
    """The volumes of all groups on decoded disks; identities and times likewise."""


GUEST_DISKS: Final = DiskParsers(
    decode=decode,
    as_vhdx=as_vhdx,
    as_vhd=as_vhd,
    as_vmdk=as_vmdk,
    references=references,
    has_volumes=has_volumes,
    volume_folder=volume_folder,
    partitions_folder=partitions_folder,
    refusal_folder=refusal_folder,
    has_physical_volumes=has_physical_volumes,
    group_folder=group_folder,
)
"""Every format that timefs decodes."""
