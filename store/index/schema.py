"""The index's tables. Derived, private to one machine, and free to change with `INDEX_FORMAT`.

Names need not be UTF-8: they are kept as bytes. Used by store.index.index and store.index.apply.
Positions are those of store.format.row; blobs of runs are arrays of store.index.run.RUN with a
checksum beside them.
"""

from enum import IntEnum
from typing import Final

INDEX_FORMAT: Final = 7


class EventKind(IntEnum):
    """What happened to a file as a whole."""

    FILE = 1
    RESIZE = 2
    DROP = 3
    LOST = 4
    """A pack is lost: until the next row says otherwise, nothing is known of the file."""


def encode_name(name: str) -> bytes:
    """A name as the index keeps it."""
    return name.encode(errors="surrogateescape")


def decode_name(stored: bytes) -> str:
    """A name that the index kept."""
    return stored.decode(errors="surrogateescape")


SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (format INTEGER, repository BLOB, boot TEXT);
CREATE TABLE IF NOT EXISTS writers (
    writer INTEGER PRIMARY KEY, machine BLOB, next_number INTEGER, epoch INTEGER,
    position INTEGER);
CREATE TABLE IF NOT EXISTS packs (
    writer INTEGER, number INTEGER, epoch INTEGER, trans BLOB, part INTEGER, last INTEGER,
    blocks INTEGER, bytes INTEGER, position INTEGER, fingerprint BLOB,
    PRIMARY KEY (writer, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS lost (
    writer INTEGER, number INTEGER, position INTEGER, epoch INTEGER, reason TEXT,
    PRIMARY KEY (writer, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS instants (
    writer INTEGER, position INTEGER, time_ns INTEGER, fuzzy INTEGER,
    PRIMARY KEY (writer, time_ns)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    writer INTEGER, file INTEGER, position INTEGER, kind INTEGER, time_ns INTEGER,
    value INTEGER, name BLOB,
    PRIMARY KEY (writer, file, position, kind)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS changes (
    writer INTEGER, file INTEGER, last_position INTEGER, first_position INTEGER, time_ns INTEGER,
    PRIMARY KEY (writer, file, last_position)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spans (
    writer INTEGER, file INTEGER, position INTEGER, first_page INTEGER, end_page INTEGER,
    lost INTEGER,
    PRIMARY KEY (writer, file, position, first_page)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pages (
    writer INTEGER, file INTEGER, page INTEGER, position INTEGER, whole INTEGER,
    first_position INTEGER, runs BLOB, checksum INTEGER,
    PRIMARY KEY (writer, file, page, position, whole));
CREATE TABLE IF NOT EXISTS samples (
    prefix INTEGER, writer INTEGER, number INTEGER,
    PRIMARY KEY (prefix, writer, number)) WITHOUT ROWID;
"""
