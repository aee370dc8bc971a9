"""The duplicate search: has this block been stored before, and where.

Defined here and only here: sorted digest tables, the probe of the newest packs, and the sampled
search that finds a pack by one in 16 of its digests and then knows all of them. Used by
transactions. Memory is bounded by the constants below whatever the repository holds; a duplicate
that is missed costs space and nothing else. Not thread-safe.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from store.errors import DamagedError
from store.format.row import DIGEST_BYTES
from store.index.apply import SAMPLE_MASK
from store.packs.reader import PackReader

RECENT_MAX: Final = 2 << 20
"""Digests of the newest packs that are probed one by one: 8 GiB of blocks, 56 MiB of memory."""

TABLE_MAX: Final = RECENT_MAX // 4
"""Digests in one sorted table: merging two takes three times its memory for a moment."""

LOADED_MAX: Final = 24
"""Older packs whose digests are kept after a sample pointed at them."""

Places = npt.NDArray[np.uint32]
"""Writer, number and slot of each of some blocks; shape (n, 3). Writer 0: not found."""

_U64 = npt.NDArray[np.uint64]


class DigestTable(NamedTuple):
    """Digests sorted by their first half, with places."""

    keys: _U64
    rests: _U64
    places: Places


def digest_table(digests: bytes, writer: int, number: int) -> DigestTable:
    """The digests of one pack, in slot order."""
    halves = np.frombuffer(digests, "<u8").reshape(-1, DIGEST_BYTES // 8)
    places = np.empty((len(halves), 3), np.uint32)
    places[:, 0], places[:, 1], places[:, 2] = writer, number, np.arange(len(halves))
    order = np.argsort(halves[:, 0], kind="stable")
    return DigestTable(halves[order, 0], halves[order, 1], places[order])


def _belong_together(first: DigestTable, second: DigestTable) -> bool:
    sizes = first.keys.size, second.keys.size
    return sizes[0] < 2 * sizes[1] and sum(sizes) <= TABLE_MAX


def _merge(first: DigestTable, second: DigestTable) -> DigestTable:
    """Column by column: what is joined but not sorted yet would be as large as both tables."""
    order = np.argsort(np.concatenate([first.keys, second.keys]), kind="stable")
    return DigestTable(
        np.concatenate([first.keys, second.keys])[order],
        np.concatenate([first.rests, second.rests])[order],
        np.concatenate([first.places, second.places])[order],
    )


class DuplicateSearch:
    """Finds places of blocks by digest."""

    def __init__(
        self,
        reader: PackReader,
        samples: Callable[[Sequence[int]], Iterable[tuple[int, int]]],
        newest: Iterable[tuple[int, int]],
    ) -> None:
        """Make a search.

        Args:
            reader: Reads the packs' digests.
            samples: Gives (writer, number) of packs that hold any of some sampled prefixes.
            newest: (writer, number) of the packs to probe one by one, oldest first.
        """
        self._reader = reader
        self._samples = samples
        self._recent: list[DigestTable] = []
        self._loaded: OrderedDict[tuple[int, int], DigestTable] = OrderedDict()
        self.unsealed: dict[bytes, int] = {}
        """Slot of each digest in the pack that is being filled."""
        for writer, number in newest:
            table = self._load(writer, number)
            if table is not None:
                self._add(table)

    def _load(self, writer: int, number: int) -> DigestTable | None:
        """A pack's digests; nothing if it has none or is damaged."""
        try:
            digests = self._reader.all_digests(writer, number)
        except DamagedError:
            return None
        return digest_table(digests, writer, number) if digests else None

    def _add(self, table: DigestTable) -> None:
        """Keep few sorted tables, each full or at least twice the next; forget the oldest."""
        self._recent.append(table)
        while len(self._recent) > 1 and _belong_together(*self._recent[-2:]):
            self._recent[-2:] = [_merge(*self._recent[-2:])]
        while len(self._recent) > 1 and sum(t.keys.size for t in self._recent) > RECENT_MAX:
            self._recent.pop(0)

    def sealed(self, digests: bytes, writer: int, number: int) -> None:
        """The pack that was being filled is closed; these are its digests in slot order."""
        self.unsealed.clear()
        if digests:
            self._add(digest_table(digests, writer, number))

    def find(self, digests: bytes) -> Places:
        """The place of each digest among sealed packs, as far as the search knows."""
        halves = np.frombuffer(digests, "<u8").reshape(-1, DIGEST_BYTES // 8)
        keys, rests = halves[:, 0].copy(), halves[:, 1].copy()
        found = np.zeros((len(keys), 3), np.uint32)
        missing = np.arange(len(keys))
        for table in [*reversed(self._recent), *reversed(self._loaded.values())]:
            missing = _probe(table, keys, rests, missing, found)
            if not missing.size:
                return found
        for table in self._load_sampled(keys[missing]):
            missing = _probe(table, keys, rests, missing, found)
        return found

    def _load_sampled(self, keys: _U64) -> list[DigestTable]:
        """Digests of packs that hold a sampled one of these keys and were not loaded yet."""
        chosen = keys[(keys & np.uint64(SAMPLE_MASK)) == 0]
        loaded: list[DigestTable] = []
        for pack in self._samples(chosen.view(np.int64).tolist()) if chosen.size else ():
            if pack in self._loaded:
                continue
            table = self._load(*pack)
            if table is None:
                continue
            self._loaded[pack] = table
            loaded.append(table)
            if len(self._loaded) > LOADED_MAX:
                self._loaded.popitem(last=False)
        return loaded


def _probe(
    table: DigestTable,
    keys: _U64,
    rests: _U64,
    missing: npt.NDArray[np.int64],
    found: Places,
) -> npt.NDArray[np.int64]:
    """Fill in what the table knows of the missing; answer what is still missing."""
    wanted = keys[missing]
    at = np.searchsorted(table.keys, wanted)
    at[at == table.keys.size] = 0
    hit = (table.keys[at] == wanted) & (table.rests[at] == rests[missing])
    if not hit.any():
        return missing
    found[missing[hit]] = table.places[at[hit]]
    return missing[~hit]
