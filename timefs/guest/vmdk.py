"""VMDK: VMware's disks as images: a descriptor and the extents it lists, on a parent or alone.

Defined here and only here: descriptors and the disk they make. The extents that have tables are in
timefs.guest.vmdk_extent. Used by timefs.guest.detect. Immutable and thread-safe. Extents of ESX
kinds that no file holds (raw device maps) and old ESX snapshots (vmfsSparse) are not supported.

Source: VMware, Virtual Disk Format 5.0; seSparse as QEMU's block/vmdk.c documents it.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, Image, MappedImage
from timefs.guest.beneath import beneath
from timefs.guest.joined import JoinedImage, Piece
from timefs.guest.siblings import Siblings
from timefs.guest.vmdk_extent import MAGIC, SECTOR_BYTES, SESPARSE_MAGIC, open_grains, sparse_header

DESCRIPTOR_MAGIC: Final = b"# disk descriptorfile"
DESCRIPTOR_BYTES_MAX: Final = 1 << 20
EXTENTS_MAX: Final = 4096
DISK_BYTES_MAX: Final = 1 << 60
FLAT_KINDS: Final = ("FLAT", "VMFS")
NO_PARENT: Final = "ffffffff"

_KEY = re.compile(r"^\s*([\w.]+)\s*=\s*\"?([^\"]*?)\"?\s*$")
_EXTENT = re.compile(
    r"^\s*(RW|RDONLY|NOACCESS)\s+(\d+)\s+(\w+)(?:\s+\"([^\"]*)\"(?:\s+(\d+))?.*)?$"
)


class ListedExtent(NamedTuple):
    """A line of a descriptor's list of extents."""

    access: str
    size: int
    """Bytes."""
    kind: str
    path: str
    offset: int
    """Bytes, into the file of a flat extent."""


class Descriptor(NamedTuple):
    """What a descriptor says."""

    cid: str
    parent_cid: str
    parent: str
    """Path of the parent's descriptor; empty if there is none."""
    extents: list[ListedExtent]


def is_vmdk(container: Image) -> bool:
    """Whether a file is a VMDK by itself: a descriptor, or an extent with one inside.

    An extent without a descriptor is a piece of a disk that another file describes.
    """
    if container.read(0, len(DESCRIPTOR_MAGIC)).lower() == DESCRIPTOR_MAGIC:
        return True
    return container.read(0, 4) == MAGIC and bool(sparse_header(container).descriptor_offset)


def read_descriptor(container: Image) -> Descriptor:
    """The descriptor of a VMDK.

    Raises:
        CorruptError: it contradicts the format.
    """
    if container.read(0, 4) == MAGIC:
        header = sparse_header(container)
        if header.descriptor_bytes > DESCRIPTOR_BYTES_MAX:
            raise CorruptError(f"VMDK descriptor: {header.descriptor_bytes} bytes are too many")
        content = container.read(header.descriptor_offset, header.descriptor_bytes)
    else:
        content = container.read(0, DESCRIPTOR_BYTES_MAX)
    if content[: len(DESCRIPTOR_MAGIC)].lower() != DESCRIPTOR_MAGIC:
        raise CorruptError("VMDK descriptor: expected its first line, got something else")
    values: dict[str, str] = {}
    extents: list[ListedExtent] = []
    for line in content.partition(b"\0")[0].decode(errors="surrogateescape").splitlines():
        piece, pair = _EXTENT.match(line), _KEY.match(line)
        if piece is not None:
            access, sectors, kind, path, offset = piece.groups()
            numbers = (int(sectors[:20]) * SECTOR_BYTES, int((offset or "0")[:20]) * SECTOR_BYTES)
            extents.append(ListedExtent(access, numbers[0], kind.upper(), path or "", numbers[1]))
        elif pair is not None and not line.lstrip().startswith("#"):
            values[pair[1].lower()] = pair[2]
    if not extents or len(extents) > EXTENTS_MAX:
        raise CorruptError(f"VMDK descriptor: expected 1 to {EXTENTS_MAX} extents, not so many")
    if sum(extent.size for extent in extents) > DISK_BYTES_MAX:
        raise CorruptError("VMDK descriptor: its extents are absurdly large")
    parent_cid = values.get("parentcid", NO_PARENT).lower().rjust(8, "0")
    parent = values.get("parentfilenamehint", "") if parent_cid != NO_PARENT else ""
    if parent_cid != NO_PARENT and not parent:
        raise CorruptError("VMDK descriptor: it has a parent and does not name it")
    return Descriptor(values.get("cid", "").lower().rjust(8, "0"), parent_cid, parent, extents)


def references(container: Image) -> list[str]:
    """The paths of the files that the disk's content depends on."""
    descriptor = read_descriptor(container)
    paths = [extent.path for extent in descriptor.extents if extent.path]
    embedded = container.read(0, 4) == MAGIC
    return ([] if embedded else paths) + ([descriptor.parent] if descriptor.parent else [])


def open_vmdk(container: Image, siblings: Siblings) -> Image:
    """The disk of a VMDK.

    Raises:
        CorruptError: the file contradicts the format, or a file it needs is missing.
        UnsupportedError: it needs a feature that is not decoded.
    """
    descriptor = read_descriptor(container)
    parent = _parent(descriptor, siblings) if descriptor.parent else None
    embedded = container.read(0, 4) == MAGIC
    if embedded and len(descriptor.extents) != 1:
        raise CorruptError("VMDK: expected one extent where the descriptor is inside it")
    pieces: list[Piece] = []
    start = 0
    for extent in descriptor.extents:
        below = _Beneath.of(parent, start, extent.size)
        image = _image(extent, container if embedded else None, siblings, below)
        if image is not None:
            flat = extent.kind in FLAT_KINDS
            pieces.append(Piece(start, extent.size, image, extent.offset if flat else 0))
        start += extent.size
    return JoinedImage(start, pieces)


def _parent(descriptor: Descriptor, siblings: Siblings) -> Image:
    file, above = siblings.file((descriptor.parent,), "VMDK parent")
    if not is_vmdk(file):
        raise CorruptError(f"VMDK parent {descriptor.parent!a}: expected a VMDK, got another file")
    got = read_descriptor(file).cid
    if got != descriptor.parent_cid:
        raise CorruptError(
            f"VMDK parent {descriptor.parent!a}: content id: expected {descriptor.parent_cid}, "
            f"got {got}; it was written to after the child was made"
        )
    return open_vmdk(file, above)


def _image(
    extent: ListedExtent, file: Image | None, siblings: Siblings, beneath: Image | None
) -> Image | None:
    """The bytes of one extent; None for one of zeros."""
    what = f"VMDK extent {extent.path!a}"
    if extent.kind == "ZERO":
        return beneath
    if extent.access == "NOACCESS":
        raise UnsupportedError(f"{what}: the guest has no access to it either")
    if extent.kind not in (*FLAT_KINDS, "SPARSE", "SESPARSE"):
        raise UnsupportedError(f"{what}: extents of kind {extent.kind} are not decoded")
    if file is None:
        file, _ = siblings.file((extent.path,), what)
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
