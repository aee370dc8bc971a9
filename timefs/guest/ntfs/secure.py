"""Security descriptors: one stream for the whole volume, found by number.

Defined here and only here: `Descriptors`. Used by `xattrs`. Thread-safe: what is held is immutable
or a bounded cache.
"""

import struct
from functools import cached_property, lru_cache
from typing import Final

from store.errors import CorruptError
from store.image import Image
from timefs.guest.ntfs.record import DATA, SECURITY_DESCRIPTOR, STANDARD_INFORMATION
from timefs.guest.ntfs.table import FileRecord, Table
from timefs.guest.ntfs.view import View

SECURE_NUMBER: Final = 9
SII: Final = "$SII".encode("utf-16-le")
SDS: Final = "$SDS".encode("utf-16-le")

MIRROR_BYTES: Final = 256 << 10
"""Each descriptor is stored twice, this far apart."""

DESCRIPTOR_BYTES_MIN: Final = 20
DESCRIPTOR_BYTES_MAX: Final = 1 << 20
DESCRIPTORS_MAX: Final = 64

IDENTIFIED_BYTES: Final = 72
"""From this size on, standard information says which descriptor of the volume is the file's."""

_ENTRY: Final = struct.Struct("<IIQI")
_NUMBER: Final = struct.Struct("<I")


class Descriptors:
    """The security descriptors of one volume."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._numbered = lru_cache(DESCRIPTORS_MAX)(self._read)

    def of(self, file: FileRecord) -> bytes | None:
        """A file's descriptor, self-relative; None if it has none.

        Raises:
            CorruptError: it is lost or damaged.
        """
        standard = file.first(STANDARD_INFORMATION)
        if standard is not None and standard.value and standard.size >= IDENTIFIED_BYTES:
            (number,) = _NUMBER.unpack_from(standard.value, 52)
            if number:
                return self._numbered(number)
        if file.first(SECURITY_DESCRIPTOR) is None:
            return None
        image = file.open(SECURITY_DESCRIPTOR)
        if not DESCRIPTOR_BYTES_MIN <= image.size <= DESCRIPTOR_BYTES_MAX:
            raise CorruptError(f"{file.record.where}: a security descriptor of {image.size} bytes")
        return image.read(0, image.size)

    @cached_property
    def _file(self) -> FileRecord:
        return self._table.file(SECURE_NUMBER)

    @cached_property
    def _view(self) -> View:
        return View(self._file, SII, self._table.geometry.cluster_bytes)

    @cached_property
    def _stream(self) -> Image:
        return self._file.open(DATA, SDS)

    def _read(self, number: int) -> bytes:
        where = f"$Secure: descriptor {number}"
        found = self._view.find(_NUMBER.pack(number))
        if found is None or len(found) < _ENTRY.size:
            raise CorruptError(f"{where}: expected it in $SII, found none")
        _, _, place, length = head = _ENTRY.unpack_from(found)
        size = length - _ENTRY.size
        if not DESCRIPTOR_BYTES_MIN <= size <= DESCRIPTOR_BYTES_MAX or head[1] != number:
            raise CorruptError(f"{where}: absurd entry of {length} bytes for {head[1]}")
        for at in (place, place + MIRROR_BYTES):
            stored = self._stream.read(at, length)
            content = stored[_ENTRY.size :]
            whole = len(content) == size and _ENTRY.unpack_from(stored) == head
            if whole and _digest(content) == head[0]:
                return content
        raise CorruptError(f"{where}: expected it at {place} of $SDS, found other bytes")


def _digest(descriptor: bytes) -> int:
    """The checksum that $Secure keeps of a descriptor.

    Source: NTFS documentation of the Linux-NTFS project, "$Secure".
    """
    digest = 0
    for (word,) in _NUMBER.iter_unpack(descriptor[: len(descriptor) & ~3]):
        digest = (word + (digest << 3 | digest >> 29)) & 0xFFFFFFFF
    return digest
