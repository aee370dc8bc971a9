"""VMDK: VMware's disks as images: a descriptor and the extents it lists, on a parent or alone.

Defined here and only here: descriptors and the disk they make. The extents that have tables are in
timefs.guest.vmdk_extent. Used by timefs.guest.detect. Immutable and thread-safe. Extents of ESX
kinds that no file holds (raw device maps) and old ESX snapshots (vmfsSparse) are not supported.

Source: VMware, Virtual Disk Format 5.0; seSparse as QEMU's block/vmdk.c documents it.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Extent, ExtentKind, Image, MappedImage
from timefs.guest.beneath import beneath
from timefs.guest.siblings import Siblings
from timefs.guest.vmdk_extent import MAGIC, SECTOR_BYTES, SESPARSE_MAGIC, open_grains, sparse_header

DESCRIPTOR_MAGIC: Final = b"# disk descriptorfile"
DESCRIPTOR_BYTES_MAX: Final = 1 << 20
EXTENTS_MAX: Final = 4096
DISK_BYTES_MAX: Final = 1 << 60
NO_PARENT: Final = "ffffffff"

_KEY = re.compile(r"^\s*([\w.]+)\s*=\s*\"?([^\"]*?)\"?\s*$")
_EXTENT = re.compile(
    r"^\s*(RW|RDONLY|NOACCESS)\s+(\d+)\s+(\w+)(?:\s+\"([^\"]*)\"(?:\s+(\d+))?.*)?$"
)


class Piece(NamedTuple):
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
    pieces: list[Piece]


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
    pieces: list[Piece] = []
    for line in content.partition(b"\0")[0].decode(errors="surrogateescape").splitlines():
        piece, pair = _EXTENT.match(line), _KEY.match(line)
        if piece is not None:
            access, sectors, kind, path, offset = piece.groups()
            numbers = (int(sectors[:20]) * SECTOR_BYTES, int((offset or "0")[:20]) * SECTOR_BYTES)
            pieces.append(Piece(access, numbers[0], kind.upper(), path or "", numbers[1]))
        elif pair is not None and not line.lstrip().startswith("#"):
            values[pair[1].lower()] = pair[2]
    if not pieces or len(pieces) > EXTENTS_MAX:
        raise CorruptError(f"VMDK descriptor: expected 1 to {EXTENTS_MAX} extents, not so many")
    if sum(piece.size for piece in pieces) > DISK_BYTES_MAX:
        raise CorruptError("VMDK descriptor: its extents are absurdly large")
    parent_cid = values.get("parentcid", NO_PARENT).lower().rjust(8, "0")
    parent = values.get("parentfilenamehint", "") if parent_cid != NO_PARENT else ""
    if parent_cid != NO_PARENT and not parent:
        raise CorruptError("VMDK descriptor: it has a parent and does not name it")
    return Descriptor(values.get("cid", "").lower().rjust(8, "0"), parent_cid, parent, pieces)


def references(container: Image) -> list[str]:
    """The paths of the files that the disk's content depends on."""
    descriptor = read_descriptor(container)
    paths = [piece.path for piece in descriptor.pieces if piece.path]
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
    if embedded and len(descriptor.pieces) != 1:
        raise CorruptError("VMDK: expected one extent where the descriptor is inside it")
    parts: list[tuple[Piece, Image | None]] = []
    start = 0
    for piece in descriptor.pieces:
        file = container if embedded else None
        parts.append((piece, _part(piece, file, siblings, _Beneath.of(parent, start, piece.size))))
        start += piece.size
    return Vmdk(parts)


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


def _part(
    piece: Piece, file: Image | None, siblings: Siblings, beneath: Image | None
) -> Image | None:
    """The image of one extent; None for one of zeros."""
    what = f"VMDK extent {piece.path!a}"
    if piece.kind == "ZERO":
        return beneath
    if piece.access == "NOACCESS":
        raise UnsupportedError(f"{what}: the guest has no access to it either")
    if piece.kind not in ("FLAT", "VMFS", "SPARSE", "SESPARSE"):
        raise UnsupportedError(f"{what}: extents of kind {piece.kind} are not decoded")
    if file is None:
        file, _ = siblings.file((piece.path,), what)
    if piece.kind in ("FLAT", "VMFS"):
        if piece.offset + piece.size > file.size:
            raise CorruptError(
                f"{what}: expected {piece.offset} + {piece.size} bytes, got {file.size}"
            )
        return file
    magic = SESPARSE_MAGIC if piece.kind == "SESPARSE" else MAGIC
    if file.read(0, len(magic)) != magic:
        raise CorruptError(f"{what}: expected a {piece.kind} extent, got something else")
    return open_grains(file, piece.size, beneath)


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


class Vmdk(MappedImage):
    """The disk: its extents one after another."""

    def __init__(self, parts: list[tuple[Piece, Image | None]]) -> None:
        self._parts = parts
        self._starts = [0]
        for piece, _ in parts:
            self._starts.append(self._starts[-1] + piece.size)
        super().__init__(self._starts[-1])

    def map(self, offset: int, length: int) -> Iterator[Extent]:
        end = offset + length
        number = bisect_right(self._starts, offset) - 1
        while offset < end:
            (piece, image), start = self._parts[number], self._starts[number]
            number += 1
            count = min(start + piece.size, end) - offset
            if not count:
                continue
            if image is None:
                yield Extent(offset, count, ExtentKind.ZERO, None, 0)
            else:
                place = offset - start + (piece.offset if piece.kind in ("FLAT", "VMFS") else 0)
                yield Extent(offset, count, ExtentKind.DATA, image, place)
            offset += count
