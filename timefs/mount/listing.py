"""What an open folder shows, page after page.

Defined here and only here: `Record` and `Listing`. Used by the file-system core and the adapters.
Thread-safe.
"""

import stat
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from threading import Lock
from typing import Final, NamedTuple

from store.budget import spend
from store.errors import InterruptError
from timefs.mount.failures import Failures
from timefs.mount.handles import inode_of
from timefs.tree import Attributes, Folder, Link, Listed, Node

NAME_BYTES_MAX: Final = 1024
"""A name of 255 UTF-16 units takes up to 765 bytes as WTF-8."""

AHEAD_ENTRIES: Final = 1024
"""Gathered behind the page that was asked for, while the kernel takes that one in: so many that a
reader seldom waits for a part of a folder that comes at once, as those of NTFS do."""

BEHIND_ENTRIES: Final = 8192
"""Kept behind a reader, who goes back at most to where the last answer began."""

_LENGTHS: Final = range(1, NAME_BYTES_MAX + 1)
_DOTS: Final = frozenset({b".", b".."})


class Record(NamedTuple):
    """One entry of a listing. `attributes` is None when they could not be had."""

    name: bytes
    inode: int
    type_bits: int
    node: Node
    attributes: Attributes | None
    frozen: bool
    """Whether the attributes can never change again."""


class Listing:
    """What one open folder shows: a snapshot that grows as it is read.

    Of a folder that cannot change, what its reader left behind is let go, and gathered again
    should it be wanted once more.
    """

    def __init__(self, folder: Folder, node_id: int, failures: Failures) -> None:
        self.node_id = node_id
        self.frozen = folder.frozen  # before the entries: the watermark may rise meanwhile
        self._afresh = partial(_records, folder, failures)
        self._coming = self._afresh()
        self._kept: tuple[int, list[Record]] = 0, []
        self._failure: Exception | None = None
        self._expected = 0
        self._lock = Lock()

    @property
    def kept(self) -> int:
        """How many entries it holds."""
        return len(self._kept[1])

    def page(self, position: int, count: int) -> Sequence[Record]:
        """At most `count` entries from a position on; none beyond the end.

        Raises:
            Exception: what the folder raised behind its last entry, each time again: a listing
                that broke has no end.
        """
        end = position + count
        self._expected = end + max(count, AHEAD_ENTRIES)
        first, records = self._kept
        if not first <= position <= end <= first + len(records):
            with self._lock:
                first, records = self._reaching(position, end)
        page = records[position - first : end - first]  # no lock: others only add meanwhile
        if not page and self._failure is not None:
            raise self._failure
        return page

    def read_ahead(self) -> None:
        """Gather what its reader is likely to want next, unless somebody gathers already."""
        if self._lock.acquire(blocking=False):
            try:
                self._gather(self._expected)
            finally:
                self._lock.release()

    def _reaching(self, position: int, end: int) -> tuple[int, list[Record]]:
        """What is kept, with all from `position` to `end` that there is."""
        if position < self._kept[0]:
            self._coming, self._failure, self._kept = self._afresh(), None, (0, [])
        for reached in range(BEHIND_ENTRIES, position, BEHIND_ENTRIES):
            self._gather(reached)
            self._let_go(reached)
        self._let_go(position)
        self._gather(end)
        return self._kept

    def _let_go(self, position: int) -> None:
        first, records = self._kept
        behind = position - BEHIND_ENTRIES
        if self.frozen and behind - first > BEHIND_ENTRIES:
            self._kept = behind, records[behind - first :]

    def _gather(self, end: int) -> None:
        first, records = self._kept
        missing = end - first - len(records)
        if missing > 0 and self._failure is None:
            try:
                for record in islice(self._coming, missing):
                    records.append(record)  # one by one: what came before a failure stays
            except InterruptError:  # of one who asked; others begin again behind what is there
                self._coming = islice(self._afresh(), first + len(records), None)
                raise
            except Exception as error:  # noqa: BLE001 - raised behind what came before
                self._failure = error


def _records(folder: Folder, failures: Failures) -> Iterator[Record]:
    for part in folder.entries_with_attributes():
        for name, node, at_hand in _showable(part):
            frozen = node.frozen  # before the attributes
            attributes = at_hand or _asked(name, node, failures)
            type_bits = _type_bits(node) if attributes is None else stat.S_IFMT(attributes.mode)
            yield Record(name, inode_of(node), type_bits, node, attributes, frozen)


def _asked(name: bytes, node: Node, failures: Failures) -> Attributes | None:
    """A node's attributes, None if it fails: one bad node must not hide all the others."""
    try:
        return node.attributes()
    except Exception as error:  # noqa: BLE001 - whatever it is
        spend(0)
        failures.errno_of(error, name.decode(errors="backslashreplace"))
        return None


def _type_bits(node: Node) -> int:
    """What kind of node it is, as far as can be told without its attributes."""
    if isinstance(node, Folder):
        return stat.S_IFDIR
    return stat.S_IFLNK if isinstance(node, Link) else stat.S_IFREG


def _showable(part: Sequence[Listed]) -> Sequence[Listed]:
    """Those with names that a kernel takes; one that it refuses would fail the whole listing."""
    names = [name for name, _, _ in part]
    together = b"".join(names)
    plain = b"/" not in together and b"\0" not in together and _DOTS.isdisjoint(names)
    if plain and all(map(_LENGTHS.__contains__, map(len, names))):
        return part
    return [one for one in part if _is_showable(one[0])]


def _is_showable(name: bytes) -> bool:
    if b"/" in name or b"\0" in name:
        return False
    return len(name) in _LENGTHS and name not in _DOTS
