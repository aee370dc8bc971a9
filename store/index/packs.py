"""Which packs the index knows: asked of it, as values.

Defined here and only here. Used by whoever continues a machine's log, by the catalog and by check.
No state.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from store.format.statement import PackReference
from store.index.index import Index


class CompletePack(NamedTuple):
    """A pack of a transaction that counts."""

    writer: int
    number: int
    epoch: int
    part: int
    last: int
    blocks: int
    bytes: int
    position: int
    """Of the transaction's end."""


def pack_sizes(index: Index, writer: int) -> list[tuple[int, int]]:
    """Number and bytes of every pack of a writer."""
    return index.ask("SELECT number, bytes FROM packs WHERE writer = ?", writer)


def newest_packs(index: Index, writer: int, count: int) -> list[PackReference]:
    """A writer's newest packs, newest first."""
    rows = index.ask(
        "SELECT writer, number FROM packs WHERE writer = ? ORDER BY number DESC LIMIT ?",
        writer,
        count,
    )
    return [PackReference(*row) for row in rows]


def sampled_packs(index: Index, prefixes: Sequence[int]) -> list[PackReference]:
    """For each of some sampled digests' first halves, a pack that holds such a digest."""
    rows = index.ask(
        "SELECT DISTINCT writer, number FROM samples"
        " WHERE prefix IN (SELECT value FROM json_each(?)) GROUP BY prefix",
        json.dumps(prefixes),
    )
    return [PackReference(*row) for row in rows]


def complete_packs(index: Index, writer: int, first: int, count: int) -> list[CompletePack]:
    """Packs of a writer's complete transactions from a number on."""
    rows = index.ask(
        "SELECT writer, number, epoch, part, last, blocks, bytes, position FROM packs"
        " WHERE writer = ? AND position > 0 AND number >= ? ORDER BY number LIMIT ?",
        writer,
        first,
        count,
    )
    return [CompletePack(*row) for row in rows]


def lost_packs(index: Index) -> list[PackReference]:
    """Packs that are gone or damaged though later ones are there."""
    return [PackReference(*row) for row in index.ask("SELECT writer, number FROM lost")]
