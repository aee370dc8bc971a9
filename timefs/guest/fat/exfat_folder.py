"""Folders of exFAT: sets of entries with a checksum.

Defined here and only here: `exfat_records` and `exfat_label`. Used by `node` and `volume`.
Stateless.

Source: Microsoft, "exFAT file system specification", 6 and 7.
"""

import struct
from collections.abc import Iterator
from itertools import chain
from typing import Final

import numpy as np

from store.errors import CorruptError
from timefs.guest.fat.record import Located, Record, possible, shown, time_ns
from timefs.tree import in_parts

LABEL: Final = 0x83
FILE: Final = 0x85
SECONDARY: Final = 0xC0
"""Bits of an entry in use that belongs to the one before."""

STREAM: Final = 0xC0
NAME: Final = 0xC1
FOLDER: Final = 0x10
TOGETHER: Final = 2
NAME_UNITS: Final = 15
SECONDARIES_MIN: Final = 2
SECONDARIES_MAX: Final = 18
OFFSET_KNOWN: Final = 0x80

_FILE: Final = struct.Struct("<BBHHHHHHHHHBBBBB7x")
_STREAM: Final = struct.Struct("<BBBBHHQIIQ")


def exfat_records(entries: Iterator[Located]) -> Iterator[Record]:
    """The names in a folder's entries.

    Raises:
        CorruptError: after all the others, if a set is damaged or cannot be a name.
    """
    refusal: CorruptError | None = None
    for part in in_parts(_sets(entries)):
        checksums = _checksums([b"".join(found) for _, found in part])
        for (place, found), checksum in zip(part, checksums, strict=True):
            try:
                yield _record(found, place, checksum)
            except CorruptError as error:
                refusal = refusal or error
    if refusal is not None:
        raise refusal


def exfat_record(entries: Iterator[Located]) -> Record:
    """The name whose set of entries these begin with.

    Raises:
        CorruptError: none does, or it is damaged.
    """
    for place, found in _sets(entries):
        return _record(found, place, _checksum(b"".join(found)))
    raise CorruptError("exFAT folder: expected a set of entries, found none")


def _sets(entries: Iterator[Located]) -> Iterator[tuple[int, list[bytes]]]:
    """Each file's first entry with those that follow it, as many as it says and there are."""
    place, found = 0, list[bytes]()
    for at, entry in entries:
        if found and len(found) <= found[0][1] and entry[0] & SECONDARY == SECONDARY:
            found.append(entry)
            continue
        if found:
            yield place, found
        place, found = at, [entry] if entry[0] == FILE else []
        if entry[0] == 0:
            return
    if found:
        yield place, found


def exfat_label(entries: Iterator[Located]) -> str:
    """The volume's label, which the root folder holds; empty if it does not."""
    for _, entry in entries:
        if entry[0] == 0:
            break
        if entry[0] == LABEL:
            units = min(entry[1], 11)
            return entry[2 : 2 + units * 2].decode("utf-16-le", "replace")
    return ""


def _record(found: list[bytes], place: int, got: int) -> Record:
    """What a set says whose bytes have the checksum `got`."""
    where = f"exFAT folder: the set at {place}"
    (_, secondaries, checksum, kind, _, created_time, created_date, changed_time, changed_date,
     accessed_time, accessed_date, created_hundredths, changed_hundredths,
     *offsets) = _FILE.unpack(found[0])  # fmt: skip
    if not SECONDARIES_MIN <= secondaries <= SECONDARIES_MAX or len(found) <= secondaries:
        raise CorruptError(f"{where} expected {secondaries} further entries, got {len(found) - 1}")
    if got != checksum:
        raise CorruptError(f"{where} expected checksum {checksum:#x}, got {got:#x}")
    stream, flags, _, length, _, _, written, _, cluster, size = _STREAM.unpack(found[1])
    pieces = [entry for entry in found[2:] if entry[0] == NAME]
    if stream != STREAM or len(pieces) * NAME_UNITS < length or written > size:
        raise CorruptError(f"{where} contradicts itself")
    name = shown(b"".join(piece[2:] for piece in pieces)[: length * 2])
    if name in (b".", b"..") or not possible(name):
        raise CorruptError(f"{where} has the name {name!a}, which cannot be")
    created, changed, accessed = (_offset_minutes(offset) for offset in offsets)
    return Record(
        name=name,
        place=place,
        folder=bool(kind & FOLDER),
        size=size,
        written_bytes=written,
        cluster=cluster,
        together=bool(flags & TOGETHER),
        created_ns=time_ns(created_date, created_time, created_hundredths, created),
        mtime_ns=time_ns(changed_date, changed_time, changed_hundredths, changed),
        atime_ns=time_ns(accessed_date, accessed_time, 0, accessed),
    )


def _offset_minutes(stored: int) -> int:
    """Quarters of an hour east of UTC, in seven bits with a sign; 0 if unknown."""
    if not stored & OFFSET_KNOWN:
        return 0
    quarters = stored & 0x7F
    return (quarters - 128 if quarters & 0x40 else quarters) * 15


def _checksum(content: bytes) -> int:
    """The checksum of a set."""
    total = 0
    for byte in content[:2] + content[4:]:  # between them it is stored itself
        total = (total >> 1 | (total & 1) << 15) + byte & 0xFFFF
    return total


def _checksums(sets: list[bytes]) -> list[int]:
    """The same of each of many; those of one length are added up side by side."""
    checksums = [0] * len(sets)
    lengths: dict[int, list[int]] = {}
    for number, content in enumerate(sets):
        lengths.setdefault(len(content), []).append(number)
    for length, numbers in lengths.items():
        alike = np.frombuffer(b"".join(sets[number] for number in numbers), np.uint8)
        columns = alike.reshape(-1, length).T.astype(np.uint16)
        total = np.zeros(len(numbers), np.uint16)
        for at in chain(range(2), range(4, length)):
            total = (total >> 1 | total << 15) + columns[at]
        for number, checksum in zip(numbers, total.tolist(), strict=True):
            checksums[number] = checksum
    return checksums
