"""LVM2 physical volumes: the label, its checksum, and the newest metadata text beside it.

Defined here and only here. Used by timefs.guest.lvm. Immutable and thread-safe.

Source: lvm2, lib/label/label.h and lib/format_text/layout.h (structures), lib/misc/crc.c (the
checksum: CRC-32 with its own initial value and no final inversion).
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from store.image import Image, read_exactly

SECTOR_BYTES: Final = 512
LABEL_SECTORS: Final = 4
"""The label is in one of the first so many."""

LABEL: Final = struct.Struct("<8sQII8s")
LABEL_ID: Final = b"LABELONE"
LABEL_TYPE: Final = b"LVM2 001"
AREA: Final = struct.Struct("<QQ")
ID_BYTES: Final = 32
AREAS_MAX: Final = 16
METADATA_AREAS_MAX: Final = 2
"""LVM2 makes one at the start, and one at the end if asked."""


AREA_HEADER: Final = struct.Struct("<I16sIQQ")
AREA_MAGIC: Final = b" LVM2 x[5A%r0N*>"
AREA_HEADER_BYTES: Final = 512
LOCATION: Final = struct.Struct("<QQII")
IGNORED: Final = 1
TEXT_BYTES_MAX: Final = 4 << 20
CHECKSUM_START: Final = 0xF597A6CF


class PhysicalVolume(NamedTuple):
    """A disk or partition that belongs to a group."""

    id: str
    """Without hyphens."""
    volume: Image
    texts: list[str]
    """The metadata that it holds: one text an area."""


def lvm_checksum(content: bytes) -> int:
    """LVM2's checksum."""
    return zlib.crc32(content, CHECKSUM_START ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def label_place(content: bytes) -> int | None:
    """Where the label is, whole or not, given the first sectors of a volume; None if nowhere."""
    for at in range(0, LABEL_SECTORS * SECTOR_BYTES, SECTOR_BYTES):
        sector = content[at : at + SECTOR_BYTES]
        if sector[:8] == LABEL_ID and sector[24:32] == LABEL_TYPE and len(sector) == SECTOR_BYTES:
            return at
    return None


def label_is_whole(content: bytes) -> bool:
    """Whether there is a label whose checksum is right, given the first sectors of a volume."""
    place = label_place(content)
    if place is None:
        return False
    sector = content[place : place + SECTOR_BYTES]
    return bool(lvm_checksum(sector[20:]) == LABEL.unpack_from(sector)[2])


def read_physical_volume(volume: Image) -> PhysicalVolume:
    """A physical volume and the metadata in it.

    Raises:
        CorruptError: the label or every one of its metadata areas is damaged.
        UnsupportedError: there is more metadata than is read.
    """
    content = volume.read(0, LABEL_SECTORS * SECTOR_BYTES)
    place = label_place(content)
    if place is None:
        raise CorruptError("LVM2: expected a label, got none")
    sector = content[place : place + SECTOR_BYTES]
    _, _, expected, at, _ = LABEL.unpack_from(sector)
    if lvm_checksum(sector[20:]) != expected:
        raise CorruptError("LVM2 label: its checksum differs")
    if at + ID_BYTES + 8 > SECTOR_BYTES:
        raise CorruptError(f"LVM2 label: header: expected it within the sector, got {at}")
    identity = sector[at : at + ID_BYTES].decode("ascii", errors="replace")
    texts: list[str] = []
    refusal: CorruptError | UnsupportedError | None = None
    for offset, length in _metadata_areas(sector, at + ID_BYTES + 8)[:METADATA_AREAS_MAX]:
        try:
            text = _text(volume, offset, length)
        except (CorruptError, UnsupportedError) as error:
            refusal = refusal or error
            continue
        texts += [text] if text else []
    if refusal is not None and not texts:
        raise refusal
    return PhysicalVolume(identity, volume, texts)


def _areas(sector: bytes, at: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of a list of areas, which an empty one ends."""
    for _ in range(AREAS_MAX):
        if at + AREA.size > SECTOR_BYTES:
            break
        offset, length = AREA.unpack_from(sector, at)
        at += AREA.size
        if not offset and not length:
            return
        yield offset, length
    raise CorruptError("LVM2 label: a list of areas without an end")


def _metadata_areas(sector: bytes, at: int) -> list[tuple[int, int]]:
    """The metadata areas: the second list."""
    data = list(_areas(sector, at))
    return list(_areas(sector, at + (len(data) + 1) * AREA.size))


def _text(volume: Image, offset: int, length: int) -> str | None:
    """The metadata that an area's header points to; None if it points to none."""
    what = f"LVM2 metadata area at {offset}"
    header = read_exactly(volume, offset, AREA_HEADER_BYTES, what)
    checksum, magic, version, start, area_bytes = AREA_HEADER.unpack_from(header)
    if lvm_checksum(header[4:]) != checksum or magic != AREA_MAGIC or version != 1:
        raise CorruptError(f"{what}: its header is damaged")
    if start != offset or area_bytes > length or area_bytes <= AREA_HEADER_BYTES:
        raise CorruptError(f"{what}: expected its own place, got {start} + {area_bytes}")
    text_at, text_bytes, expected, flags = LOCATION.unpack_from(header, AREA_HEADER.size)
    if not text_at or flags & IGNORED:
        return None
    room = area_bytes - AREA_HEADER_BYTES
    if text_bytes > TEXT_BYTES_MAX:
        raise UnsupportedError(f"{what}: a text of {text_bytes} bytes; this version reads 4 MiB")
    if not AREA_HEADER_BYTES <= text_at < area_bytes or text_bytes > room:
        raise CorruptError(f"{what}: text: expected it within the area, got {text_at}")
    first = min(text_bytes, area_bytes - text_at)  # the area is a ring after its header
    content = read_exactly(volume, offset + text_at, first, what)
    content += read_exactly(volume, offset + AREA_HEADER_BYTES, text_bytes - first, what)
    if lvm_checksum(content) != expected:
        raise CorruptError(f"{what}: text: its checksum differs")
    return content.rstrip(b"\0").decode(errors="replace")
