"""Attributes of many files at once: their records read together and decoded side by side.

Defined here and only here: `survey`. Used by `folder`. Stateless and thread-safe.

Only what is whole and ordinary is answered: a record that lies in one piece, contradicts the
format nowhere and has nothing beside it. Every other file is left to its node, which knows the
rest of the format and says what is wrong; nothing is decided here about damage. A step of the walk
through the attributes is made for all records together, which is why this is fast.
"""

from collections.abc import Sequence
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
    """Little-endian fields at many places of one buffer. Places are bytes."""

    def __init__(self, records: NDArray[np.uint8]) -> None:
        """A place in all rows but the last may be followed by any field."""
        self._bytes = records.reshape(-1)
        self._last = len(self._bytes) - records.shape[1]
        self._halves = self._bytes.view("<u2")
        self._words = self._bytes.view("<u4")
        self._longs = self._bytes.view("<i8")

    def u8(self, at: Numbers) -> Numbers:
        return self._bytes[np.minimum(at, self._last)].astype(np.int64)

    def u16(self, at: Numbers) -> Numbers:
        return self._halves[np.minimum(at, self._last) >> 1].astype(np.int64)

    def put_u16(self, at: Numbers, values: Numbers) -> None:
        self._halves[at >> 1] = values

    def u32(self, at: Numbers) -> Numbers:
        return self._words[np.minimum(at, self._last) >> 2].astype(np.int64)

    def i64(self, at: Numbers) -> Numbers:
        return self._longs[np.minimum(at, self._last) >> 3]


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
    content, usual = table.raw_records((references & NUMBER_MASK).astype(np.int64))
    usual &= listed_flags & FLAG_REPARSE == 0
    fields = _Fields(content)
    record_bytes = content.shape[1]
    starts = np.arange(len(entries)) * record_bytes
    usual &= _mend(fields, starts, record_bytes)
    sequence, links = fields.u16(starts + 16), fields.u16(starts + 18)
    expected = (references >> np.uint64(48)).astype(np.int64)
    usual &= (expected == 0) | (expected == sequence)
    flags = fields.u16(starts + 22)
    usual &= flags & _IN_USE != 0
    usual &= (flags & _FOLDER != 0) == is_folder
    usual &= fields.i64(starts + 32) == 0
    seen = _Seen(usual)
    _walk(fields, starts, record_bytes, seen)
    geometry = table.geometry
    seen.usual &= seen.standard_at != 0
    seen.usual &= seen.has_data | is_folder
    seen.usual &= is_folder | (seen.allocated <= geometry.clusters * geometry.cluster_bytes)
    return _answers(fields, seen, is_folder, links)


def _mend(fields: _Fields, starts: Numbers, record_bytes: int) -> Truths:
    """Put the words back that the fix-ups keep; answers of which records all parts are whole."""
    strides = record_bytes // STRIDE_BYTES
    array = fields.u16(starts + 4)
    whole = (fields.u32(starts) == _MAGIC) & (fields.u16(starts + 6) == strides + 1)
    whole &= (array >= 8) & (array % 2 == 0) & (array + 2 * (strides + 1) <= record_bytes)
    array = starts + np.where(whole, array, 8)
    check = fields.u16(array)
    words = [fields.u16(array + 2 * stride) for stride in range(1, strides + 1)]
    for stride, word in enumerate(words, 1):
        end = starts + stride * STRIDE_BYTES - 2
        whole &= fields.u16(end) == check
        fields.put_u16(end, word)
    return whole


def _walk(fields: _Fields, starts: Numbers, record_bytes: int, seen: _Seen) -> None:
    """Look at the attributes of all records, the first of each, then the second of each."""
    start, used = fields.u16(starts + 20), fields.u32(starts + 24)
    seen.usual &= (start % 8 == 0) & (start <= used) & (used <= record_bytes)
    rows = np.flatnonzero(seen.usual)
    at, end = (starts + start)[rows], (starts + used)[rows]
    for _ in range(STEPS_MAX):
        more = (at + 4 > end) | (fields.u32(at) != _END)
        rows, at, end = rows[more], at[more], end[more]
        length = fields.u32(at + 4)
        fits = (at + _RESIDENT_BYTES <= end) & (length >= _RESIDENT_BYTES) & (length % 8 == 0)
        fits &= at + length <= end
        seen.usual[rows[~fits]] = False
        rows, at, end, length = rows[fits], at[fits], end[fits], length[fits]
        if not len(rows):
            return
        seen.usual[rows[~_look(fields, at, length, rows, seen)]] = False
        at = at + length
    seen.usual[rows] = False


def _look(fields: _Fields, at: Numbers, length: Numbers, rows: Numbers, seen: _Seen) -> Truths:
    """Look at one attribute of each of some records; answers which are ordinary."""
    kind = fields.u32(at)
    outside, name_units = fields.u8(at + 8) != 0, fields.u8(at + 9)
    usual = (kind != ATTRIBUTE_LIST) & (kind != REPARSE_POINT)
    usual &= fields.u16(at + 10) + 2 * name_units <= length
    resident_size, value_at = fields.u32(at + 16), fields.u16(at + 20)
    usual &= outside | (value_at + resident_size <= length)
    size, allocated, sound = _outside(fields, at, length)
    usual &= ~outside | sound
    value = at + value_at
    unnamed = name_units == 0

    standard = unnamed & (kind == STANDARD_INFORMATION) & (seen.standard_at[rows] == 0)
    usual &= ~standard | (~outside & (resident_size >= _STANDARD_BYTES) & (value % 8 == 0))
    seen.standard_at[rows[standard]] = value[standard]

    alias = unnamed & (kind == FILE_NAME) & ~outside & (resident_size >= _NAME_BYTES)
    alias &= fields.u8(value + _NAME_BYTES - 1) == NAMESPACE_DOS
    seen.aliases[rows[alias]] += 1

    data = unnamed & (kind == DATA) & ~seen.has_data[rows]
    usual &= ~data | ~outside | (fields.i64(at + 16) == 0)
    seen.size[rows[data]] = np.where(outside, size, resident_size)[data]
    seen.allocated[rows[data]] = np.where(outside, allocated, resident_size + 7 & ~7)[data]
    seen.has_data[rows[data]] = True
    return usual


def _outside(fields: _Fields, at: Numbers, length: Numbers) -> tuple[Numbers, Numbers, Truths]:
    """Size, bytes allocated and soundness of attributes, taken as if they lay in clusters."""
    first, last = fields.i64(at + 16), fields.i64(at + 24)
    pairs_at, unit = fields.u16(at + 32), fields.u16(at + 34)
    allocated, size, initialized = (fields.i64(at + place) for place in (40, 48, 56))
    sound = (length >= _OUTSIDE_BYTES) & (pairs_at >= _OUTSIDE_BYTES) & (pairs_at <= length)
    sound &= (first >= 0) & (first - 1 <= last)
    sizes = (initialized >= 0) & (initialized <= size) & (size <= allocated)
    sound &= (first != 0) | sizes
    packed = (unit != 0) & (first == 0) & (length >= _PACKED_BYTES)
    allocated = np.where(packed, fields.i64(at + 64), allocated)
    sound &= ~packed | (allocated >= 0)
    return size, allocated, sound


def _answers(
    fields: _Fields, seen: _Seen, is_folder: Truths, links: Numbers
) -> list[Attributes | None]:
    usual = seen.usual
    nanoseconds: list[list[int]] = []
    for place in (8, 24, 16, 0):  # modified, accessed, changed, created
        ticks = fields.i64(seen.standard_at + place)
        usual &= (ticks > EPOCH_TICKS - _TICKS_MAX) & (ticks < EPOCH_TICKS + _TICKS_MAX)
        nanoseconds.append(((ticks - EPOCH_TICKS) * 100).tolist())
    usual &= is_folder | (fields.u32(seen.standard_at + 32) & FLAG_REPARSE == 0)
    columns = (
        np.where(is_folder, FOLDER_MODE, FILE_MODE),
        np.where(is_folder, 0, seen.size),
        np.where(is_folder, 0, seen.allocated),
        np.where(is_folder, 1, np.where(links > 1, links - seen.aliases, links)),
    )
    shown = zip(*(column.tolist() for column in columns), *nanoseconds, strict=True)
    return [
        Attributes(*values) if one else None
        for one, values in zip(usual.tolist(), shown, strict=True)
    ]
