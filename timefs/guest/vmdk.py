"""VMDK: VMware's disks as images: a descriptor and the extents it lists, on a parent or alone.

Defined here and only here: the disk. The text that describes it is in guest.vmdk_descriptor, the
extents that have tables are in guest.vmdk_extent. Used by timefs.guest.detect. Immutable and
thread-safe. Extents of ESX kinds that no file holds (raw device maps) and old ESX snapshots
(vmfsSparse) are not supported.

Source: VMware, Virtual Disk Format 5.0; seSparse as QEMU's block/vmdk.c documents it.
"""

from collections.abc import Iterator
from typing import Final

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, Image, MappedImage
from timefs.guest.beneath import beneath
from timefs.guest.joined import JoinedImage, Piece
from timefs.guest.siblings import Siblings
from timefs.guest.vmdk_descriptor import (
    DESCRIPTOR_BYTES_MAX,
    HEAD_BYTES,
    Descriptor,
    ListedExtent,
    is_descriptor,
    parse_descriptor,
)
from timefs.guest.vmdk_extent import MAGIC, SESPARSE_MAGIC, open_grains, sparse_header

FLAT_KINDS: Final = ("FLAT", "VMFS")


def is_vmdk(container: Image) -> bool:
    """Whether a file is a VMDK by itself: a descriptor, or an extent with one inside.

    An extent without a descriptor is a piece of a disk that another file describes.
    """
    if container.read(0, len(MAGIC)) == MAGIC:
        return bool(sparse_header(container).descriptor_offset)
    return is_descriptor(container.read(0, HEAD_BYTES))


def read_descriptor(container: Image) -> Descriptor:
    """The descriptor of a VMDK.

    Raises:
        CorruptError: it contradicts the format.
    """
    if container.read(0, len(MAGIC)) == MAGIC:
        header = sparse_header(container)
        length = min(header.descriptor_bytes, DESCRIPTOR_BYTES_MAX)
        content = container.read(header.descriptor_offset, length)
    else:
        content = container.read(0, DESCRIPTOR_BYTES_MAX)
    if not is_descriptor(content):
        raise CorruptError("VMDK descriptor: expected its keys, got something else")
    return parse_descriptor(content)


def _describes_itself(container: Image) -> bool:
    """Whether the descriptor lies in the disk's only extent."""
    return container.read(0, len(MAGIC)) == MAGIC and sparse_header(container).size > 0


def references(container: Image) -> list[str]:
    """The paths of the files that the disk's content depends on."""
    descriptor = read_descriptor(container)
    listed = [] if _describes_itself(container) else descriptor.extents
    return [*descriptor.parent_names, *(name for extent in listed for name in extent.names)]


def open_vmdk(container: Image, siblings: Siblings) -> Image:
    """The disk of a VMDK.

    Raises:
        CorruptError: the file contradicts the format, or a file it needs is missing.
        UnsupportedError: it needs a feature that is not decoded.
    """
    descriptor = read_descriptor(container)
    parent = _parent(descriptor, siblings) if descriptor.parent_names else None
    if _describes_itself(container):
        return open_grains(container, sparse_header(container).size, parent)
    if not descriptor.extents:
        raise CorruptError("VMDK descriptor: it lists no extent")
    pieces: list[Piece] = []
    start = 0
    for extent in descriptor.extents:
        below = _Beneath.of(parent, start, extent.size)
        image = _image(extent, descriptor.note, siblings, below)
        if image is not None:
            flat = extent.kind in FLAT_KINDS
            pieces.append(Piece(start, extent.size, image, extent.offset if flat else 0))
        start += extent.size
    return JoinedImage(start, pieces)


def _parent(descriptor: Descriptor, siblings: Siblings) -> Image:
    what = f"VMDK parent {descriptor.parent_names[0]!a}"
    file, above = siblings.file(descriptor.parent_names, what + descriptor.note)
    if not is_vmdk(file):
        raise CorruptError(f"{what}: expected a VMDK, got another file")
    got = read_descriptor(file).cid
    if got != descriptor.parent_cid:
        raise CorruptError(
            f"{what}: content id: expected {descriptor.parent_cid}, got {got}; it was written to "
            "after the child was made"
        )
    return open_vmdk(file, above)


def _image(
    extent: ListedExtent, note: str, siblings: Siblings, beneath: Image | None
) -> Image | None:
    """The bytes of one extent; None for one of zeros."""
    if extent.kind == "ZERO":
        return beneath
    what = f"VMDK extent {next(iter(extent.names), '')!a}"
    if extent.access == "NOACCESS":
        raise UnsupportedError(f"{what}: the guest has no access to it either")
    if extent.kind not in (*FLAT_KINDS, "SPARSE", "SESPARSE"):
        raise UnsupportedError(f"{what}: extents of kind {extent.kind!a} are not decoded")
    file, _ = siblings.file(extent.names, what + note)
    if extent.kind in FLAT_KINDS:
        if extent.offset + extent.size > file.size:
            raise CorruptError(
                f"{what}: expected {extent.offset} + {extent.size} bytes, got {file.size}"
            )
        return file
    magic = SESPARSE_MAGIC if extent.kind == "SESPARSE" else MAGIC
    if file.read(0, len(magic)) != magic:
        raise CorruptError(f"{what}: expected a {extent.kind} extent, got something else")
    return open_grains(file, extent.size, beneath)


class _Beneath(MappedImage):
    """The part of the parent that one extent covers, zeros beyond the parent's end."""

    def __init__(self, parent: Image, start: int, size: int) -> None:
        super().__init__(size)
        self._parent = parent
        self._start = start

    @classmethod
    def of(cls, parent: Image | None, start: int, size: int) -> "Image | None":
        """Nothing if there is no parent."""
        return None if parent is None else cls(parent, start, size)

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        for run in beneath(self._parent, self._start + offset, length):
            yield run._replace(offset=run.offset - self._start)
