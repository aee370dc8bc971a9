"""Edits inside a volume: records and index blocks taken out mended, changed and put back."""

import struct
from collections.abc import Callable, Iterator

from store.image import BytesImage
from timefs.guest.ntfs import NtfsVolume, open_volume
from timefs.guest.ntfs.boot import parse_boot
from timefs.guest.ntfs.record import (
    DATA,
    INDEX_ALLOCATION,
    Attribute,
    Record,
    mend,
    parse_record,
)
from timefs.guest.ntfs.runs import HOLE, Runs
from timefs.tree import Node, walk

STRIDE = 512


class Patient:
    """A volume in memory that can be damaged on purpose. Its $MFT has no attribute list."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.geometry = parse_boot(content[:STRIDE], len(content))
        first = self.geometry.table_place
        zero = parse_record(self._taken(first, self.geometry.record_bytes), 0)
        self._table = self._runs(zero, DATA)
        self.records = self._table.end * self.geometry.cluster_bytes // self.geometry.record_bytes

    def open(self) -> NtfsVolume:
        return open_volume(BytesImage(bytes(self.content)), b"patient")

    def node(self, path: str) -> Node:
        return walk(self.open().root, path.encode().split(b"/"))

    def number(self, path: str) -> int:
        """The record number of a file."""
        return int.from_bytes(self.node(path).identity[-6:], "big")

    def place(self, number: int) -> int:
        """Where a record lies."""
        at = number * self.geometry.record_bytes
        return next(iter(self._places(self._table, at)))

    def record(self, number: int) -> Record:
        data = self._taken(self.place(number), self.geometry.record_bytes)
        return parse_record(data, number)

    def attribute(self, number: int, kind: int) -> tuple[int, Attribute]:
        """The first attribute of a kind and where its header begins in the mended record."""
        data = self._taken(self.place(number), self.geometry.record_bytes)
        mend(data, b"FILE", "patient")
        at = int(struct.unpack_from("<H", data, 20)[0])
        for attribute in self.record(number).attributes:
            if attribute.kind == kind:
                return at, attribute
            at += int(struct.unpack_from("<I", data, at + 4)[0])
        raise AssertionError(kind)

    def blocks(self, number: int) -> list[int]:
        """Where the 4 KiB index blocks of a folder lie."""
        runs = self._runs(self.record(number), INDEX_ALLOCATION)
        size = runs.end * self.geometry.cluster_bytes
        return [next(iter(self._places(runs, at))) for at in range(0, size, 4096)]

    def extents(self, path: str) -> list[tuple[int, int]]:
        """Where the clusters of a file lie and how many bytes they are."""
        return self.extents_of(self.number(path))

    def extents_of(self, number: int) -> list[tuple[int, int]]:
        """Where the clusters of the data of a record lie and how many bytes they are."""
        return self._extents(self._runs(self.record(number), DATA))

    def runs_of(self, number: int) -> list[tuple[int, int]]:
        """The same for every attribute of a record that lies in clusters, named ones too."""
        found: list[tuple[int, int]] = []
        for attribute in self.record(number).attributes:
            if attribute.value is None:
                runs = Runs(self.geometry, "patient")
                runs.extend(attribute)
                found += self._extents(runs)
        return found

    def _extents(self, runs: Runs) -> list[tuple[int, int]]:
        cluster = self.geometry.cluster_bytes
        ends = [*runs.starts[1:], runs.end]
        return [
            (place * cluster, (end - start) * cluster)
            for start, end, place in zip(runs.starts, ends, runs.places, strict=True)
            if place != HOLE
        ]

    def edit_record(self, number: int, change: Callable[[bytearray], None]) -> None:
        """Change a mended record and protect it again."""
        self.edit_structure(self.place(number), self.geometry.record_bytes, change)

    def edit_value(self, number: int, kind: int, change: Callable[[bytearray], None]) -> None:
        """Change the content of an attribute: in the record, or in its one run of clusters."""
        at, attribute = self.attribute(number, kind)
        if attribute.value is not None:
            value = bytearray(attribute.value)
            change(value)
            start = at + (24 + len(attribute.name) + 7) // 8 * 8
            self.edit_record(
                number, lambda data: data.__setitem__(slice(start, start + len(value)), value)
            )
            return
        place = self._runs(self.record(number), kind).places[0] * self.geometry.cluster_bytes
        value = self.content[place : place + attribute.size]
        change(value)
        self.content[place : place + attribute.size] = value

    def edit_structure(self, place: int, length: int, change: Callable[[bytearray], None]) -> None:
        """Change a mended record or index block and protect it again."""
        data = self._taken(place, length)
        magic = bytes(data[:4])
        start, count = struct.unpack_from("<HH", data, 4)
        check = bytes(data[start : start + 2])
        mend(data, magic, "patient")
        change(data)
        for stride in range(1, count):
            end = stride * STRIDE
            word = start + 2 * stride  # where the array was, whatever the change did to it
            data[word : word + 2] = data[end - 2 : end]
            data[end - 2 : end] = check
        self.content[place : place + length] = data

    def _taken(self, place: int, length: int) -> bytearray:
        return self.content[place : place + length]

    def _runs(self, record: Record, kind: int) -> Runs:
        runs = Runs(self.geometry, "patient")
        for attribute in record.attributes:
            if attribute.kind == kind and attribute.value is None:
                runs.extend(attribute)
        return runs

    def _places(self, runs: Runs, at: int) -> Iterator[int]:
        cluster = self.geometry.cluster_bytes
        for start, place in zip(reversed(runs.starts), reversed(runs.places), strict=True):
            if start * cluster <= at:
                yield place * cluster + at - start * cluster
