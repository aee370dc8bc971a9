"""The master file table: records by number, and a file's attributes wherever they are kept.

Defined here and only here: `Table` and `FileRecord`. Used by `index`, `node` and `volume`. Both
are thread-safe: what they hold is immutable or a bounded cache.
"""

import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.errors import CorruptError, TimefsError
from store.image import Image, read_exactly
from timefs.guest.ntfs.boot import Geometry
from timefs.guest.ntfs.record import (
    ATTRIBUTE_LIST,
    DATA,
    NUMBER_MASK,
    Attribute,
    Record,
    parse_record,
)
from timefs.guest.ntfs.runs import Runs
from timefs.guest.ntfs.stream import Stream, open_pieces

BATCH_BYTES: Final = 4 << 10
"""The table is read in pieces of this size, a block: neighbours are usually wanted together."""

BATCHES_MAX: Final = 256
RECORDS_MAX: Final = 512
"""Batches and parsed records that are kept."""

SKIPPED_MAX: Final = 8
"""Records that are read in vain rather than reading those around them apart."""

LIST_BYTES_MAX: Final = 1 << 20
"""An attribute list beyond this is absurd; Windows stops at 256 KiB."""

MIRRORED: Final = 4
"""$MFTMirr holds the first records again."""

_ENTRY: Final = struct.Struct("<IHBBQQH")


class Listed(NamedTuple):
    """One entry of an attribute list: a piece of an attribute and the record that holds it."""

    kind: int
    name: bytes
    first_cluster: int
    reference: int
    instance: int


class Table:
    """All records of one volume."""

    def __init__(self, volume: Image, geometry: Geometry) -> None:
        """Find the table itself.

        Raises:
            CorruptError: its own first record is damaged, and so is the mirror's.
        """
        self.volume = volume
        self.geometry = geometry
        self._batch = lru_cache(BATCHES_MAX)(self._read_batch)
        self.record = lru_cache(RECORDS_MAX)(self._read_record)
        """The record of a number.

        Raises:
            CorruptError: there is no such record, or it is damaged.
        """
        self._stream = self._open_first(self._record_zero())
        self._stream = self._open_whole()

    def file(self, reference: int) -> "FileRecord":
        """The file that a reference (number and sequence) means.

        Raises:
            CorruptError: the record is damaged, free, or by now another file's.
        """
        record = self.record(reference & NUMBER_MASK)
        sequence = reference >> 48
        if not record.in_use or record.base:
            raise CorruptError(f"{record.where}: expected a file, got a free or further record")
        if sequence not in (0, record.sequence):
            raise CorruptError(
                f"{record.where}: expected its use {sequence}, got {record.sequence}"
            )
        return FileRecord(self, record)

    def _record_zero(self) -> Record:
        try:
            return self._at(self.geometry.table_place, 0)
        except TimefsError as error:
            return self._mirrored(0, error)

    def _at(self, place: int, number: int) -> Record:
        data = read_exactly(self.volume, place, self.geometry.record_bytes, f"NTFS record {number}")
        return parse_record(bytearray(data), number)

    def _mirrored(self, number: int, error: TimefsError) -> Record:
        """The mirror's copy of a record that could not be read for `error`."""
        try:
            place = self.geometry.mirror_place + number * self.geometry.record_bytes
            return self._at(place, number)
        except TimefsError:
            raise error from None

    def _open_first(self, zero: Record) -> Stream:
        """The table as far as its first record maps it."""
        self._zero = FileRecord(self, zero)
        pieces = [one for one in zero.attributes if one.kind == DATA and not one.name]
        if not pieces or pieces[0].value is not None:
            raise CorruptError(f"{zero.where}: expected $MFT's data in clusters, found none")
        self._runs = Runs(self.geometry, f"{zero.where}: $MFT")
        self._runs.extend(pieces[0])
        self._size = pieces[0].initialized_bytes
        return self._mapped()

    def _open_whole(self) -> Stream:
        """The table whole: each further piece lies in a record that those before it map.

        Behind a damaged piece no record is known, and reading one says so; the others are served.
        """
        with suppress(CorruptError):
            for listed in self._zero.listed():
                if listed.kind == DATA and not listed.name and listed.first_cluster:
                    self._runs.extend(self._zero.piece(listed))
                    self._stream = self._mapped()
        return self._stream

    def _mapped(self) -> Stream:
        size = min(self._size, self._runs.end * self.geometry.cluster_bytes)
        return Stream(self.volume, self._runs, (size, size))

    def _read_batch(self, number: int) -> bytes:
        return self._stream.read(number * BATCH_BYTES, BATCH_BYTES)

    def _read_record(self, number: int) -> Record:
        try:
            return parse_record(self._raw(number), number)
        except TimefsError as error:
            if number < MIRRORED:
                return self._mirrored(number, error)
            raise

    def raw_records(
        self, numbers: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
        """Many records as they are stored, as rows; the row of each, and whether it could be read.

        Rows that nobody asked for may lie between them, and one of zeros lies behind them.
        """
        record_bytes = self.geometry.record_bytes
        there = numbers < self._stream.size // record_bytes
        order = np.argsort(numbers, kind="stable")
        order = order[there[order]]
        rows = np.zeros(len(numbers), np.int64)
        steps = np.diff(numbers[order], prepend=numbers[order[:1]])
        starts = np.flatnonzero(steps > SKIPPED_MAX)
        steps[starts] = 1
        rows[order] = np.cumsum(steps)
        content = np.empty((int(rows[order[-1:]].sum()) + 2, record_bytes), np.uint8)
        content[-1] = 0
        for part in np.split(order, starts):
            if not len(part):
                continue
            span = content[rows[part[0]] : rows[part[-1]] + 1]
            try:
                self._stream.read_into(int(numbers[part[0]]) * record_bytes, span.reshape(-1).data)
            except TimefsError:
                there[part] = False
        rows[~there] = len(content) - 1
        return content, rows, there

    def _raw(self, number: int) -> bytearray:
        record_bytes = self.geometry.record_bytes
        start = number * record_bytes
        if start + record_bytes > self._stream.size:
            count = self._stream.size // record_bytes
            raise CorruptError(f"NTFS record {number}: expected one of the {count} that $MFT maps")
        if BATCH_BYTES % record_bytes == 0:
            try:
                batch = self._batch(start // BATCH_BYTES)
            except TimefsError:
                pass  # a neighbour's bytes cannot be had: this record's own perhaps can
            else:
                at = start % BATCH_BYTES
                return bytearray(batch[at : at + record_bytes])
        return bytearray(self._stream.read(start, record_bytes))


class FileRecord:
    """One file: its first record, and through its attribute list those that continue it.

    Only what is asked for is read, so a damaged further record hurts only what it holds.
    """

    __slots__ = ("_listed", "_table", "record")

    def __init__(self, table: Table, record: Record) -> None:
        self._table = table
        self.record = record
        self._listed: list[Listed] | None = None

    def pieces(self, kind: int, name: bytes = b"") -> list[Attribute]:
        """All pieces of an attribute in order, none if the file has no such attribute.

        Raises:
            CorruptError: a record that holds one is damaged or not this file's.
        """
        return list(self._matching(kind, name))

    def first(self, kind: int, name: bytes = b"") -> Attribute | None:
        """The first piece of an attribute, which has its sizes.

        Raises:
            CorruptError: the record that holds it is damaged, or it does not begin at its start.
        """
        if self.listed():
            piece = next(self._matching(kind, name), None)
        else:
            piece = self.record.first(kind, name)
        if piece is not None and piece.first_cluster:
            raise CorruptError(f"{self.record.where}: attribute {kind:#x}: its first piece is lost")
        return piece

    def names(self, kind: int) -> list[bytes]:
        """The names (UTF-16LE) that attributes of a kind have, each once."""
        listed = self.listed()
        return list(dict.fromkeys(one.name for one in listed or self.record.attributes
                                  if one.kind == kind))  # fmt: skip

    def open(self, kind: int, name: bytes = b"") -> Image:
        """The content of an attribute.

        Raises:
            CorruptError: there is none, or it is damaged.
            UnsupportedError: it is compressed or encrypted.
        """
        pieces = self.pieces(kind, name)
        where = f"{self.record.where}: attribute {kind:#x}"
        if not pieces:
            raise CorruptError(f"{where}: expected one, found none")
        return open_pieces(self._table.volume, self._table.geometry, pieces, where)

    def _matching(self, kind: int, name: bytes) -> Iterator[Attribute]:
        listed = self.listed()
        if not listed:
            for attribute in self.record.attributes:
                if attribute.kind == kind and attribute.name == name:
                    yield attribute
            return
        for one in listed:
            if one.kind == kind and one.name == name:
                yield self.piece(one)

    def piece(self, listed: Listed) -> Attribute:
        """The attribute that an entry of the list means.

        Raises:
            CorruptError: it is not where the list says, or that record is another file's.
        """
        own = self.record
        number = listed.reference & NUMBER_MASK
        record = own if number == own.number else self._table.record(number)
        if record is not own and (record.base & NUMBER_MASK) != own.number:
            raise CorruptError(
                f"{record.where}: expected to continue record {own.number},"
                f" got {record.base & NUMBER_MASK}"
            )
        if listed.reference >> 48 not in (0, record.sequence) or not record.in_use:
            raise CorruptError(f"{record.where}: free, or of another use than its list says")
        for attribute in record.attributes:
            if attribute.instance == listed.instance and attribute.kind == listed.kind:
                if attribute.name != listed.name:
                    break
                return attribute
        raise CorruptError(f"{record.where}: attribute {listed.kind:#x} is not where listed")

    def listed(self) -> list[Listed]:
        """The attribute list, in order of first cluster within a name; empty if there is none.

        Raises:
            CorruptError: it is damaged.
        """
        if self._listed is None:
            lists = [one for one in self.record.attributes if one.kind == ATTRIBUTE_LIST]
            self._listed = self._read_list(lists) if lists else []
        return self._listed

    def _read_list(self, lists: list[Attribute]) -> list[Listed]:
        where = f"{self.record.where}: attribute list"
        image = open_pieces(self._table.volume, self._table.geometry, lists, where)
        if image.size > LIST_BYTES_MAX:
            raise CorruptError(
                f"{where}: expected at most {LIST_BYTES_MAX} bytes, got {image.size}"
            )
        entries = list(_parse_list(image.read(0, image.size), where))
        if not entries:
            raise CorruptError(f"{where}: empty")
        entries.sort(key=lambda one: one.first_cluster)  # stable: a name's pieces stay together
        return entries


def _parse_list(data: bytes, where: str) -> Iterator[Listed]:
    """The entries of an attribute list.

    Source: NTFS documentation of the Linux-NTFS project, "$ATTRIBUTE_LIST".
    """
    at = 0
    while at + _ENTRY.size <= len(data):
        kind, length, name_units, name_at, first, reference, instance = _ENTRY.unpack_from(data, at)
        if length < _ENTRY.size or at + length > len(data) or name_at + 2 * name_units > length:
            raise CorruptError(f"{where}: absurd entry of {length} bytes at {at}")
        name = data[at + name_at : at + name_at + 2 * name_units]
        if kind != ATTRIBUTE_LIST:  # a list never leads to another
            yield Listed(kind, name, first, reference, instance)
        at += length
