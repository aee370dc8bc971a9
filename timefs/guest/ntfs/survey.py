"""Attributes of many files at once: their records read together and decoded side by side.

Defined here and only here: `survey`. Used by `folder`. Stateless and thread-safe.

Only what is whole and ordinary is answered: a record that lies in one piece, contradicts the
format nowhere and has nothing beside it. Every other file is left to its node, which knows the
rest of the format and says what is wrong; nothing is decided here about damage. A step of the walk
through the attributes is made for all records together, which is why this is fast.
"""

from collections.abc import Sequence
from itertools import repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from timefs.guest.ntfs.file import FILE_MODE, FLAG_FOLDER, FLAG_REPARSE
from timefs.guest.ntfs.index import NAMESPACE_DOS, IndexEntry
from timefs.guest.ntfs.node import EPOCH_TICKS, FOLDER_MODE
from timefs.guest.ntfs.record import (
    ATTRIBUTE_LIST,
    DATA,
    FILE_NAME,
    NUMBER_MASK,
    REPARSE_POINT,
    STANDARD_INFORMATION,
    STRIDE_BYTES,
)
from timefs.guest.ntfs.table import Table
from timefs.tree import Attributes

STEPS_MAX: Final = 16
"""Attributes of an ordinary record."""

_MAGIC: Final = int.from_bytes(b"FILE", "little")
_END: Final = 0xFFFFFFFF
_IN_USE, _FOLDER = 1, 2
_STANDARD_BYTES: Final = 36
_NAME_BYTES: Final = 66
_RESIDENT_BYTES: Final = 24
_OUTSIDE_BYTES: Final = 64
_PACKED_BYTES: Final = 72
_TICKS_MAX: Final = 9 * 10**16
"""From 1970, so that nanoseconds fit 64 bits."""

Numbers = NDArray[np.int64]
Truths = NDArray[np.bool_]


class _Fields:
    """Little-endian fields at many places of one buffer; what lies beyond its end is zero."""

    def __init__(self, records: NDArray[np.uint8]) -> None:
        """`records` end with a row of zeros."""
        self.record_bytes = records.shape[1]
        flat = records.reshape(-1)
        self._bytes = flat
        self._halves = flat.view("<u2")
        self._longs = flat.view("<i8")

    def u8(self, at: Numbers) -> Numbers:
        return self._bytes.take(at, mode="clip").astype(np.int64)

    def u16(self, at: Numbers) -> Numbers:
        return self._halves.take(at >> 1, mode="clip").astype(np.int64)

    def put_u16(self, at: Numbers, values: Numbers) -> None:
        self._halves[at >> 1] = values

    def structures(self, at: Numbers, kind: np.dtype[np.void]) -> NDArray[np.void]:
        """One of a kind at each place, which is a multiple of eight bytes."""
        longs = (at >> 3)[:, None] + np.arange(kind.itemsize >> 3)
        return self._longs.take(longs, mode="clip").view(kind)[:, 0]


def _kind(itemsize: int, fields: dict[str, tuple[str, int]]) -> np.dtype[np.void]:
    """A structure: for each field its type and where it is."""
    formats = [form for form, _ in fields.values()]
    offsets = [offset for _, offset in fields.values()]
    return np.dtype(
        {"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": itemsize}
    )


_HEADER: Final = _kind(
    40,
    {
        "magic": ("<u4", 0), "fixups_at": ("<u2", 4), "fixups": ("<u2", 6),
        "sequence": ("<u2", 16), "links": ("<u2", 18), "start": ("<u2", 20), "flags": ("<u2", 22),
        "used": ("<u4", 24), "base": ("<i8", 32),
    },
)  # fmt: skip
"""A record up to its first attribute."""

_ATTRIBUTE: Final = _kind(
    72,
    {
        "kind": ("<u4", 0), "length": ("<u4", 4), "outside": ("u1", 8), "name_units": ("u1", 9),
        "name_at": ("<u2", 10), "resident_size": ("<u4", 16), "value_at": ("<u2", 20),
        "first": ("<i8", 16), "last": ("<i8", 24), "pairs_at": ("<u2", 32), "unit": ("<u2", 34),
        "allocated": ("<i8", 40), "size": ("<i8", 48), "initialized": ("<i8", 56),
        "packed": ("<i8", 64),
    },
)  # fmt: skip
"""An attribute's header, as if it had each field that attributes have."""

_STANDARD: Final = _kind(
    40,
    {
        "created": ("<i8", 0), "modified": ("<i8", 8), "changed": ("<i8", 16),
        "accessed": ("<i8", 24), "flags": ("<u4", 32),
    },
)  # fmt: skip
"""A standard information."""


class _Seen:
    """What the attributes say of each file; `usual` falls where one is not ordinary."""

    def __init__(self, usual: Truths) -> None:
        count = len(usual)
        self.usual = usual
        self.standard_at = np.zeros(count, np.int64)
        """Where the standard information lies, 0 where none was met."""
        self.has_data = np.zeros(count, np.bool_)
        self.size = np.zeros(count, np.int64)
        self.allocated = np.zeros(count, np.int64)
        self.aliases = np.zeros(count, np.int64)


def survey(table: Table, entries: Sequence[IndexEntry]) -> list[Attributes | None]:
    """The attributes of the file of each entry of a folder, None where its node has to be asked."""
    references = np.array([entry.reference for entry in entries], np.uint64)
    listed_flags = np.array([entry.flags for entry in entries], np.int64)
    is_folder = listed_flags & FLAG_FOLDER != 0
    content, rows, usual = table.raw_records((references & NUMBER_MASK).astype(np.int64))
    usual &= listed_flags & FLAG_REPARSE == 0
    fields = _Fields(content)
    starts = rows * fields.record_bytes
    headers = fields.structures(starts, _HEADER)
    usual &= _mend(fields, starts, headers)
    expected = references >> np.uint64(48)
    usual &= (expected == 0) | (expected == headers["sequence"])
    flags = headers["flags"]
    usual &= flags & _IN_USE != 0
    usual &= (flags & _FOLDER != 0) == is_folder
    usual &= headers["base"] == 0
    seen = _Seen(usual)
    _walk(fields, starts, headers, seen)
    geometry = table.geometry
    seen.usual &= seen.standard_at != 0
    seen.usual &= seen.has_data | is_folder
    seen.usual &= is_folder | (seen.allocated <= geometry.clusters * geometry.cluster_bytes)
    return _answers(fields, seen, is_folder, headers["links"].astype(np.int64))


def _mend(fields: _Fields, starts: Numbers, headers: NDArray[np.void]) -> Truths:
    """Put the words back that the fix-ups keep; answers of which records all parts are whole."""
    record_bytes = fields.record_bytes
    strides = record_bytes // STRIDE_BYTES
    array = headers["fixups_at"].astype(np.int64)
    whole = (headers["magic"] == _MAGIC) & (headers["fixups"] == strides + 1)
    whole &= (array >= 8) & (array % 2 == 0) & (array + 2 * (strides + 1) <= record_bytes)
    array = starts + np.where(whole, array, 8)
    words = [fields.u16(array + 2 * stride) for stride in range(strides + 1)]
    for stride in range(1, strides + 1):
        end = starts + stride * STRIDE_BYTES - 2
        whole &= fields.u16(end) == words[0]
        fields.put_u16(end, words[stride])
    return whole


def _walk(fields: _Fields, starts: Numbers, headers: NDArray[np.void], seen: _Seen) -> None:
    """Look at the attributes of all records, the first of each, then the second of each."""
    start, used = headers["start"].astype(np.int64), headers["used"].astype(np.int64)
    record_bytes = fields.record_bytes
    seen.usual &= (start % 8 == 0) & (start <= used) & (used <= record_bytes)
    rows = np.flatnonzero(seen.usual)
    at, end = (starts + start)[rows], (starts + used)[rows]
    for _ in range(STEPS_MAX):
        met = fields.structures(at, _ATTRIBUTE)
        length = met["length"].astype(np.int64)
        ends = (at + 4 <= end) & (met["kind"] == _END)
        fits = (at + _RESIDENT_BYTES <= end) & (length >= _RESIDENT_BYTES) & (length % 8 == 0)
        fits &= at + length <= end
        seen.usual[rows[~(fits | ends)]] = False
        going = fits & ~ends
        if not going.all():
            rows, at, end, length = rows[going], at[going], end[going], length[going]
            met = met[going]
        if not len(rows):
            return
        seen.usual[rows[~_look(fields, at, met, rows, seen)]] = False
        at = at + length
    seen.usual[rows] = False


def _look(
    fields: _Fields, at: Numbers, met: NDArray[np.void], rows: Numbers, seen: _Seen
) -> Truths:
    """Look at one attribute of each of some records; answers which are ordinary."""
    kind, length = met["kind"], met["length"].astype(np.int64)
    outside, name_units = met["outside"] != 0, met["name_units"].astype(np.int64)
    resident_size = met["resident_size"].astype(np.int64)
    value_at = met["value_at"].astype(np.int64)
    usual = (kind != ATTRIBUTE_LIST) & (kind != REPARSE_POINT)
    usual &= met["name_at"] + 2 * name_units <= length
    usual &= outside | (value_at + resident_size <= length)
    value = at + value_at
    unnamed = name_units == 0

    standard = unnamed & (kind == STANDARD_INFORMATION) & (seen.standard_at[rows] == 0)
    if standard.any():
        usual &= ~standard | (~outside & (resident_size >= _STANDARD_BYTES) & (value % 8 == 0))
        seen.standard_at[rows[standard]] = value[standard]

    alias = unnamed & (kind == FILE_NAME) & ~outside & (resident_size >= _NAME_BYTES)
    if alias.any():
        alias &= fields.u8(value + _NAME_BYTES - 1) == NAMESPACE_DOS
        seen.aliases[rows[alias]] += 1

    size, allocated = resident_size, resident_size + 7 & ~7
    if outside.any():
        size_outside, allocated_outside, sound = _outside(met, length)
        usual &= ~outside | sound
        size = np.where(outside, size_outside, size)
        allocated = np.where(outside, allocated_outside, allocated)
    data = unnamed & (kind == DATA) & ~seen.has_data[rows]
    if data.any():
        usual &= ~data | ~outside | (met["first"] == 0)
        seen.size[rows[data]] = size[data]
        seen.allocated[rows[data]] = allocated[data]
        seen.has_data[rows[data]] = True
    return usual


def _outside(met: NDArray[np.void], length: Numbers) -> tuple[Numbers, Numbers, Truths]:
    """Size, bytes allocated and soundness of attributes, taken as if they lay in clusters."""
    first, pairs_at = met["first"], met["pairs_at"]
    allocated, size, initialized = met["allocated"], met["size"], met["initialized"]
    sound = (length >= _OUTSIDE_BYTES) & (pairs_at >= _OUTSIDE_BYTES) & (pairs_at <= length)
    sound &= (first >= 0) & (first - 1 <= met["last"])
    sizes = (initialized >= 0) & (initialized <= size) & (size <= allocated)
    sound &= (first != 0) | sizes
    packed = (met["unit"] != 0) & (first == 0) & (length >= _PACKED_BYTES)
    allocated = np.where(packed, met["packed"], allocated)
    sound &= ~packed | (allocated >= 0)
    return size, allocated, sound


def _answers(
    fields: _Fields, seen: _Seen, is_folder: Truths, links: Numbers
) -> list[Attributes | None]:
    usual = seen.usual
    standard = fields.structures(seen.standard_at, _STANDARD)
    nanoseconds: list[list[int]] = []
    for name in ("modified", "accessed", "changed", "created"):
        ticks = standard[name]
        usual &= (ticks > EPOCH_TICKS - _TICKS_MAX) & (ticks < EPOCH_TICKS + _TICKS_MAX)
        nanoseconds.append(((ticks - EPOCH_TICKS) * 100).tolist())
    usual &= is_folder | (standard["flags"] & FLAG_REPARSE == 0)
    columns = (
        np.where(is_folder, FOLDER_MODE, FILE_MODE),
        np.where(is_folder, 0, seen.size),
        np.where(is_folder, 0, seen.allocated),
        np.where(is_folder, 1, np.maximum(1, links - np.where(links > 1, seen.aliases, 0))),
    )
    shown = map(
        Attributes,
        *(column.tolist() for column in columns),
        *nanoseconds,
        repeat(None),  # owner
        repeat(None),  # group
        repeat(0),  # device
        standard["flags"].tolist(),
    )
    return [each if one else None for one, each in zip(usual.tolist(), shown, strict=True)]
