"""A partition, and its bytes as an image.

Defined here and only here. Used by the tables beside this module. Immutable and thread-safe.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, Image, MappedImage

PARTITIONS_MAX: Final = 128
"""Of a table; as many as a GPT usually has room for."""

DYNAMIC: Final = "a Windows dynamic disk (LDM): this version does not read its volumes"
POOL: Final = "a part of a Windows Storage Spaces pool: this version does not read its volumes"


class Partition(NamedTuple):
    """A partition of a disk."""

    number: int
    """As the guest counts: from 1; logical ones from 5."""
    name: str
    """The GPT's name; empty on an MBR."""
    beside: bool
    """Whether it serves booting, recovery or swapping rather than holding a volume of files."""
    start: int
    length: int
    """Bytes; as the table says, even if that is beyond the disk."""
    problem: str = ""
    """Why nothing in it can be shown."""


class PartitionImage(MappedImage):
    """The bytes of a partition."""

    def __init__(self, disk: Image, start: int, length: int) -> None:
        super().__init__(length)
        self._disk = disk
        self._start = start

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, ExtentKind.DATA, self._disk, self._start + offset)


def partition_image(disk: Image, partition: Partition) -> Image:
    """The bytes of a partition, as far as the disk reaches; its volume says if it is cut short.

    Raises:
        CorruptError: it begins beyond the disk, or its place is not known.
        UnsupportedError: it is a part of something larger.
    """
    if partition.problem:
        kind = UnsupportedError if partition.start else CorruptError
        raise kind(partition.problem)
    if partition.length <= 0 or not 0 <= partition.start < disk.size:
        raise CorruptError(
            f"partition {partition.number}: expected it within the disk's {disk.size} bytes, got "
            f"{partition.start} + {partition.length}"
        )
    length = min(partition.length, disk.size - partition.start)
    return PartitionImage(disk, partition.start, length)


def kept(found: list[Partition], most: int = PARTITIONS_MAX) -> list[Partition]:
    """The partitions of a table, no more than `most`; a last one says so if there are."""
    if len(found) <= most:
        return found
    problem = f"{len(found) - most} more partitions: this version shows {most} here"
    return [*found[:most], Partition(found[most].number, "", False, 0, 0, problem)]
