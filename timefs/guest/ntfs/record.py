"""FILE records: the fix-up that proves a record whole, its header and its attributes.

Defined here and only here: `mend`, `Record`, `Attribute` and `parse_record`. Used by `table`,
`index` (which mends its blocks) and `stream`. Stateless; the values are immutable.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from store.errors import CorruptError

STRIDE_BYTES: Final = 512
"""The fix-up guards pieces of this size, whatever the sector size."""

STANDARD_INFORMATION: Final = 0x10
ATTRIBUTE_LIST: Final = 0x20
FILE_NAME: Final = 0x30
OBJECT_ID: Final = 0x40
SECURITY_DESCRIPTOR: Final = 0x50
VOLUME_NAME: Final = 0x60
VOLUME_INFORMATION: Final = 0x70
DATA: Final = 0x80
INDEX_ROOT: Final = 0x90
INDEX_ALLOCATION: Final = 0xA0
REPARSE_POINT: Final = 0xC0
_END: Final = 0xFFFFFFFF

FLAG_COMPRESSED: Final = 0x00FF
FLAG_ENCRYPTED: Final = 0x4000
FLAG_SPARSE: Final = 0x8000

NUMBER_MASK: Final = (1 << 48) - 1
"""The record's number in a reference; the 16 bits above are its sequence number."""

_FIX_UP: Final = struct.Struct("<HH")
_RECORD: Final = struct.Struct("<HHHHIIQ")
_ATTRIBUTE: Final = struct.Struct("<IIBBHHH")
_RESIDENT: Final = struct.Struct("<IH")
_RUNS: Final = struct.Struct("<qqHH4xqqq")
_STORED: Final = struct.Struct("<q")


class Attribute(NamedTuple):
    """One attribute, or one piece of one that several records share. Sizes are bytes.

    `value` is None when the content lies in clusters; then `pairs` says where. The sizes are those
    of the whole attribute, and count only in the piece whose `first_cluster` is 0.
    """

    kind: int
    name: bytes
    """UTF-16LE; empty for the main stream."""
    flags: int
    instance: int
    value: bytes | None
    size: int
    allocated_bytes: int
    first_cluster: int = 0
    last_cluster: int = -1
    initialized_bytes: int = 0
    pairs: bytes = b""
    unit: int = 0
    """How many clusters are compressed together, as a power of two."""


class Record(NamedTuple):
    """One FILE record."""

    number: int
    sequence: int
    links: int
    in_use: bool
    folder: bool
    view: bool
    """Whether it is an index of other things than names, and has no data."""
    base: int
    """The reference of the record that this one continues, 0 if it is a file's first."""
    attributes: tuple[Attribute, ...]

    def first(self, kind: int, name: bytes) -> Attribute | None:
        """The first attribute of a kind and name that this record itself has."""
        for attribute in self.attributes:
            if attribute.kind == kind and attribute.name == name:
                return attribute
        return None

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"NTFS record {self.number}"


def mend(data: bytearray, magic: bytes, where: str) -> None:
    """Put the words back that the fix-up array keeps, proving that all strides belong together.

    Source: NTFS documentation of the Linux-NTFS project, "Fixup".

    Raises:
        CorruptError: another magic, an array out of bounds or a stride of another write.
    """
    if not data.startswith(magic):
        raise CorruptError(f"{where}: expected {magic!r}, got {bytes(data[:4])!r}")
    start, count = _FIX_UP.unpack_from(data, 4)
    strides = len(data) // STRIDE_BYTES
    if count != strides + 1 or start + 2 * count > len(data) or start < 8:
        raise CorruptError(f"{where}: expected {strides + 1} fix-ups, got {count} at {start}")
    words = data[start : start + 2 * count]
    for byte in (0, 1):
        ends = slice(STRIDE_BYTES - 2 + byte, None, STRIDE_BYTES)
        check, found = words[byte : byte + 1] * strides, data[ends]
        if found != check:
            stride = next(at for at in range(strides) if found[at] != check[at]) + 1
            raise CorruptError(f"{where}: torn: its part {stride} is of another write")
        data[ends] = words[2 + byte :: 2]


def parse_record(data: bytearray, number: int) -> Record:
    """The record in `data`, which is mended in place.

    Source: NTFS documentation of the Linux-NTFS project, "FILE Record" and "Attribute Header".

    Raises:
        CorruptError: it contradicts the format.
    """
    where = f"NTFS record {number}"
    mend(data, b"FILE", where)
    sequence, links, start, flags, used, _, base = _RECORD.unpack_from(data, 16)
    if used > len(data) or start > used:
        raise CorruptError(f"{where}: expected attributes up to {len(data)}, got {start} to {used}")
    attributes = tuple(_attributes(bytes(data), start, used, where))
    used, folder, view = bool(flags & 1), bool(flags & 2), bool(flags & 8)
    return Record(number, sequence, links, used, folder, view, base, attributes)


def _attributes(data: bytes, at: int, end: int, where: str) -> Iterator[Attribute]:
    while at + 4 <= end:
        if data[at : at + 4] == b"\xff\xff\xff\xff":
            return
        if at + _ATTRIBUTE.size > end:
            break
        kind, length, outside, name_units, name_at, flags, instance = _ATTRIBUTE.unpack_from(
            data, at
        )
        if length < 24 or length % 8 or at + length > end or name_at + 2 * name_units > length:
            raise CorruptError(f"{where}: attribute {kind:#x} at {at}: absurd length {length}")
        name = data[at + name_at : at + name_at + 2 * name_units] if name_units else b""
        if outside:
            body = data[at : at + length]
            yield _outside(body, (kind, name, flags, instance), where)
        else:
            size, value_at = _RESIDENT.unpack_from(data, at + 16)
            if value_at + size > length:
                raise CorruptError(
                    f"{where}: attribute {kind:#x}: expected a value within {length} bytes,"
                    f" got {size} at {value_at}"
                )
            value = data[at + value_at : at + value_at + size]
            yield Attribute(kind, name, flags, instance, value, size, (size + 7) & ~7)
        at += length
    raise CorruptError(f"{where}: its attributes have no end")


def _outside(body: bytes, head: tuple[int, bytes, int, int], where: str) -> Attribute:
    """An attribute whose content lies in clusters."""
    kind, name, flags, instance = head
    where = f"{where}: attribute {kind:#x}"
    if len(body) < 64:
        raise CorruptError(f"{where}: expected at least 64 bytes, got {len(body)}")
    first, last, pairs_at, unit, allocated, size, initialized = _RUNS.unpack_from(body, 16)
    if not (0 <= first <= last + 1 and 64 <= pairs_at <= len(body)):
        raise CorruptError(f"{where}: absurd clusters {first} to {last}, runs at {pairs_at}")
    if first == 0 and not 0 <= initialized <= size <= allocated:
        raise CorruptError(
            f"{where}: expected 0 <= initialised <= size <= allocated,"
            f" got {initialized}, {size}, {allocated}"
        )
    if unit and first == 0 and len(body) >= 72:
        allocated = int(_STORED.unpack_from(body, 64)[0])
        if allocated < 0:
            raise CorruptError(f"{where}: negative allocated size {allocated}")
    return Attribute(
        kind, name, flags, instance, None, size, allocated, first, last, initialized,
        body[pairs_at:], unit,
    )  # fmt: skip
