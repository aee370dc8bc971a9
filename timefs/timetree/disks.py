"""What a captured file that is a disk has inside, as the time tree needs it.

Defined here and only here: `DiskParsers`, the parsers that a time tree is given, and `Form`, the
ways in which a disk is shown. Used by the time tree alone. No state.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final, NamedTuple

from store.errors import UnsupportedError
from store.image import Image
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

    decode: Callable[[Image], Image]
    """The disk in a container; the very same image if it is no container."""
    has_volumes: Callable[[Image], bool]
    """Whether a decoded disk has something to browse; cheap."""
    volume_folder: Callable[[Image, bytes, int], Folder]
    """`Form.VOLUME` of a decoded disk; its nodes' identities begin with the bytes given, folders
    without a time of their own show the nanoseconds given."""
    partitions_folder: Callable[[Image, bytes, int], Folder]
    """`Form.PARTITIONS`, likewise."""


def _same(image: Image) -> Image:
    return image


def _nothing_inside(_disk: Image) -> bool:
    return False


def _no_folder(_disk: Image, _identity: bytes, _time_ns: int) -> Folder:
    raise UnsupportedError("disks: this tree was made without parsers")


NO_DISKS: Final = DiskParsers(_same, _nothing_inside, _no_folder, _no_folder)
"""For a tree that shows captured files and nothing inside them."""
