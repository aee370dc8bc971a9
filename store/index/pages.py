"""Pages of the index: what a stretch of a file is made of at a position.

Defined here and only here: how a page's whole state, its changes and spans become runs. Used by
the index (answers) and store.index.apply (merging). Pure questions to one SQLite connection.
"""

from typing import NamedTuple

import numpy as np

from store.errors import DamagedError
from store.format.digest import checksum
from store.index.database import Connection
from store.index.run import LOST_WRITER, PAGE_BYTES, RUN, Run, Runs, paint


class PageKey(NamedTuple):
    """Which page of which file, as of which position."""

    writer: int
    file: int
    page: int
    position: int


def stored_checksum(key: PageKey, runs: bytes) -> int:
    """The checksum of runs and of where they belong, as the signed number that SQLite keeps."""
    whole = checksum(b"".join(number.to_bytes(8, "little") for number in key) + runs)
    return int.from_bytes(whole.to_bytes(8, "little"), "little", signed=True)


def page_runs(connection: Connection, writer: int, file: int, page: int, at: int) -> Runs:
    """The runs of a page at a position, by offset, without overlap; gaps were never written.

    Raises:
        DamagedError: what the index holds of the page is not what was put there.
    """
    parts: list[Runs] = []
    base = connection.row(
        "SELECT position, runs, checksum FROM pages WHERE writer = ? AND file = ? AND page = ?"
        " AND whole = 1 AND position <= ? ORDER BY position DESC LIMIT 1",
        *(writer, file, page, at),
    )
    span = connection.row(
        "SELECT position, lost FROM spans WHERE writer = ? AND file = ? AND position <= ?"
        " AND first_page <= ? AND end_page > ? ORDER BY position DESC LIMIT 1",
        *(writer, file, at, page, page),
    )
    since = base[0] if base else -1
    if span and span[0] > since:
        since = span[0]
        parts.append(_span_runs(since, bool(span[1])))
    elif base:
        parts.append(parse_page(PageKey(writer, file, page, base[0]), base[1], base[2]))
    deltas = connection.rows(
        "SELECT position, runs, checksum FROM pages WHERE writer = ? AND file = ? AND page = ?"
        " AND whole = 0 AND position > ? AND first_position <= ? ORDER BY position",
        *(writer, file, page, since, at),
    )
    for last, blob, expected in deltas:
        runs = parse_page(PageKey(writer, file, page, last), blob, expected)
        parts.append(runs[(runs["position"] > since) & (runs["position"] <= at)])
    if not parts:
        return np.empty(0, RUN)
    return paint(parts[0] if len(parts) == 1 else np.concatenate(parts))


def zeros_until(connection: Connection, writer: int, file: int, page: int, at: int) -> int:
    """The page before which, from this one on, all is zeros at a position by one span of them.

    The page itself if there is no such span, or if the page, or a later span, may say otherwise.
    """
    span = connection.row(
        "SELECT position, lost, end_page FROM spans WHERE writer = ? AND file = ? AND position <= ?"
        " AND first_page <= ? AND end_page > ? ORDER BY position DESC LIMIT 1",
        *(writer, file, at, page, page),
    )
    if span is None or span[1]:
        return page
    others = connection.rows(
        "SELECT min(page) FROM pages WHERE writer = ?1 AND file = ?2 AND page >= ?3"
        " UNION ALL SELECT min(first_page) FROM spans WHERE writer = ?1 AND file = ?2"
        " AND first_page > ?3 AND position > ?4 AND position <= ?5",
        *(writer, file, page, span[0], at),
    )
    return min([span[2], *(first for (first,) in others if first is not None)])


def _span_runs(at: int, lost: bool) -> Runs:
    writer = LOST_WRITER if lost else 0
    return np.array([tuple(Run(at, 0, PAGE_BYTES, 0, 0, writer, 0, 0, 0))], dtype=RUN)


def parse_page(key: PageKey, runs: bytes, expected: int) -> Runs:
    """The runs of a stored page.

    Raises:
        DamagedError: they are not what was put there.
    """
    if stored_checksum(key, runs) != expected or len(runs) % RUN.itemsize:
        raise DamagedError(
            f"index: writer {key.writer} file {key.file} page {key.page}: wrong checksum; "
            f"run `timefs rebuild` to make the index again"
        )
    return np.frombuffer(runs, RUN)
