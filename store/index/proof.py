"""All that an index holds, for whoever proves it.

Defined here and only here. Used by check. No state.
"""

from collections.abc import Iterator
from typing import NamedTuple

from store.index.index import Index
from store.index.pages import PageKey
from store.index.schema import SCHEMA


class StoredPage(NamedTuple):
    """A page as it is stored."""

    key: PageKey
    runs: bytes
    checksum: int


def stored_pages(index: Index) -> Iterator[StoredPage]:
    """Every page.

    Raises:
        DamagedError: the index is damaged.
    """
    for *key, runs, checksum in index.each(
        "SELECT writer, file, page, position, runs, checksum FROM pages"
    ):
        yield StoredPage(PageKey(*key), runs, checksum)


def files_of(index: Index, writer: int) -> list[int]:
    """Numbers of all files that a writer ever had."""
    question = "SELECT DISTINCT file FROM events WHERE writer = ?"
    return [file for (file,) in index.ask(question, writer)]


def differing_tables(index: Index, other: Index) -> list[str]:
    """Tables that the packs determine and that are not equal in both."""
    return [table for table in derived_tables() if _rows(index, table) != _rows(other, table)]


def _rows(index: Index, table: str) -> set[tuple[object, ...]]:
    return set(index.each(f"SELECT * FROM {table}"))  # noqa: S608  # the schema's own names


def derived_tables() -> list[str]:
    """The index's tables that the packs determine."""
    words = SCHEMA.split()
    named = [words[at + 1] for at, word in enumerate(words) if word == "EXISTS"]
    return [table for table in named if table != "meta"]
