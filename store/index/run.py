"""Runs: pieces of a file that rows left behind, and painting newer ones over older ones.

Defined here and only here: the `RUN` layout of the derived index, `pieces_of_rows` and `paint`.
Used by the index (which keeps runs in pages) and by images of instants (which read them). Pure
functions; thread-safe.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from store.format.row import RowKind, Rows, position
from store.format.statement import PackReference

PAGE_BYTES: Final = 4 << 20
"""The index keeps a file's runs in pages of this much of the file."""

LOST_WRITER: Final = 0xFFFFFFFF
"""Stands in a run for bytes that went with a lost pack."""

RUN: Final = np.dtype(
    [
        ("position", "<u8"),
        ("offset", "<u4"),
        ("length", "<u4"),
        ("skip", "<u4"),
        ("row_length", "<u4"),
        ("writer", "<u4"),
        ("number", "<u4"),
        ("slot", "<u4"),
        ("check", "<u4"),
    ]
)

RECORD: Final = struct.Struct("<Q8I")
"""One element of an array of `RUN`, to unpack a single one faster than numpy does."""

Runs = np.ndarray[tuple[int], np.dtype[np.void]]


class Run(NamedTuple):
    """A piece of a row; the fields are those of `RUN`, in order. `writer` 0 means zeros."""

    position: int
    offset: int
    """From the page's start."""
    length: int
    skip: int
    """Bytes of the row before this piece."""
    row_length: int
    """Bytes of the whole row, whose slots `check` proves."""
    writer: int
    number: int
    slot: int
    """The row's first slot."""
    check: int


class Piece(NamedTuple):
    """What a row covers of a file; cut into pages it becomes runs."""

    file: int
    start: int
    end: int
    run: Run


def pieces_of_rows(
    rows: Rows, epoch: int, own: PackReference, packs: list[PackReference]
) -> Iterator[Piece]:
    """The data and zero rows of a statement, in order, as pieces."""
    for kind, _flags, file, offset, length, sequence, _time, pack, slot, check in rows.tolist():
        at = position(epoch, sequence)
        if kind == RowKind.DATA:
            writer, number = own if pack == 0 else packs[pack - 1]
            run = Run(at, 0, 0, 0, length, writer, number, slot, check)
        elif kind == RowKind.ZERO:
            run = Run(at, 0, 0, 0, 0, 0, 0, 0, 0)
        else:
            continue
        yield Piece(file, offset, offset + length, run)


def cut(piece: Piece) -> Iterator[tuple[int, Run]]:
    """The piece's runs by page number."""
    at = piece.start
    while at < piece.end:
        page, offset = divmod(at, PAGE_BYTES)
        length = min(PAGE_BYTES - offset, piece.end - at)
        skip = at - piece.start if piece.run.writer else 0
        yield page, piece.run._replace(offset=offset, length=length, skip=skip)
        at += length


def whole_pages(piece: Piece) -> tuple[int, int]:
    """First and last + 1 of the pages that a piece covers wholly."""
    return -(-piece.start // PAGE_BYTES), piece.end // PAGE_BYTES


def paint(runs: Runs) -> Runs:
    """Overlapping runs, oldest first, as runs by offset without overlap: the newest wins."""
    if runs.size < 2:
        return runs
    starts = runs["offset"].astype(np.int64)
    ends = starts + runs["length"]
    if bool((ends[:-1] <= starts[1:]).all()):
        return runs
    edges = np.unique(np.concatenate([starts, ends]))
    owner = np.full(edges.size - 1, -1, dtype=np.int64)
    first = np.searchsorted(edges, starts).tolist()
    last = np.searchsorted(edges, ends).tolist()
    for number, (begin, end) in enumerate(zip(first, last, strict=True)):
        owner[begin:end] = number
    heads = np.flatnonzero(np.r_[True, owner[1:] != owner[:-1]])
    tails = np.r_[heads[1:], owner.size]
    covered = owner[heads] >= 0
    heads, tails = heads[covered], tails[covered]
    painted = runs[owner[heads]]
    shift = edges[heads] - painted["offset"]
    painted["skip"] = np.where(painted["writer"] > 0, painted["skip"] + shift, 0)
    painted["offset"] = edges[heads]
    painted["length"] = edges[tails] - edges[heads]
    return painted
