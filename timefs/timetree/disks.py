"""What a captured file that is a disk has inside, as the time tree needs it.

Defined here and only here: `DiskParsers`, what a time tree is given, `GUEST_DISKS`, all that timefs
has, and `Form`, the ways in which a disk is shown. Used by the time tree alone. No state.
"""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final, NamedTuple

from store.image import Image
from timefs.guest.detect import decode, has_volumes, references
from timefs.guest.disktree import partitions_folder, volume_folder
from timefs.guest.siblings import Find
from timefs.tree import Folder


class Form(Enum):
    """How a disk is shown; the value is what is added to its stem or its name."""

    RAW = b".raw"
    """The decoded disk, byte for byte."""
    PARTITIONS = b".d"
    """A folder of all its partitions."""
    VOLUME = b""
    """The guest's volume itself, as a folder."""


class DiskParsers(NamedTuple):
    """What knows disk formats. All may be called from any thread and raise only our errors."""

    decode: Callable[[Image, Find], Image]
    """The disk in a container; the very same image if it is no container."""
    references: Callable[[Image], Sequence[str]]
    """The names of files of the same instant that the disk in a container directly stands on."""
    has_volumes: Callable[[Image, Find], bool]
    """Whether a captured file has something inside to show; damage is something to show. Cheap."""
    volume_folder: Callable[[Image, bytes, int], Folder]
    """`Form.VOLUME` of a decoded disk; its nodes' identities begin with the bytes given, folders
    without a time of their own show the nanoseconds given."""
    partitions_folder: Callable[[Image, bytes, int], Folder]
    """`Form.PARTITIONS`, likewise."""


GUEST_DISKS: Final = DiskParsers(decode, references, has_volumes, volume_folder, partitions_folder)
"""Every format that timefs decodes."""
