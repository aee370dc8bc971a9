"""What an open folder shows is gathered ahead of its reader, who does not wait for that."""

import threading
from collections.abc import Iterator

import pytest

from store.errors import CorruptError, InterruptError
from tests.timetree.memory_tree import MemoryFile, MemoryFolder
from timefs.mount.failures import Failures
from timefs.mount.listing import Listing
from timefs.tree import Entry

NAMES = [b"name %04d" % number for number in range(2000)]


class Slow(MemoryFolder):
    """A folder whose second thousand of names comes when it may, or is damaged."""

    def __init__(self, *, damaged: bool = False) -> None:
        super().__init__(b"slow", {})
        self._damaged = damaged
        self.reached = threading.Event()
        self.may = threading.Event()

    def entries(self) -> Iterator[Entry]:
        for name in NAMES[:1000]:
            yield Entry(name, MemoryFile(name, b""))
        self.reached.set()
        assert self.may.wait(10)
        if self._damaged:
            raise CorruptError("the second thousand")
        for name in NAMES[1000:]:
            yield Entry(name, MemoryFile(name, b""))


def names(listing: Listing, position: int, count: int) -> list[bytes]:
    return [record.name for record in listing.page(position, count)]


def test_a_page_that_is_there_is_given_while_the_next_are_gathered():
    folder = Slow()
    listing = Listing(folder, 1, Failures())
    assert names(listing, 0, 200) == NAMES[:200]
    gathering = threading.Thread(target=listing.read_ahead)
    gathering.start()
    assert folder.reached.wait(10)
    listing.read_ahead()  # somebody gathers already
    assert names(listing, 200, 200) == NAMES[200:400]
    folder.may.set()
    gathering.join(10)
    found = [name for at in range(0, 2200, 200) for name in names(listing, at, 200)]
    assert found == NAMES


def test_damage_met_ahead_is_said_behind_what_came_before_it_and_each_time():
    folder = Slow(damaged=True)
    folder.may.set()
    listing = Listing(folder, 1, Failures())
    assert names(listing, 0, 200) == NAMES[:200]
    listing.read_ahead()
    found = [name for at in range(200, 1000, 200) for name in names(listing, at, 200)]
    assert found == NAMES[200:1000]
    for _ in range(2):
        with pytest.raises(CorruptError, match="second thousand"):
            listing.page(1000, 200)


class Interrupted(MemoryFolder):
    """A folder whose first reader is interrupted half way."""

    begun = 0

    def entries(self) -> Iterator[Entry]:
        self.begun += 1
        for name in NAMES[:1000]:
            yield Entry(name, MemoryFile(name, b""))
        if self.begun == 1:
            raise InterruptError("given up: whoever asked no longer waits")
        for name in NAMES[1000:]:
            yield Entry(name, MemoryFile(name, b""))


def test_a_reader_who_was_interrupted_breaks_no_listing_for_others():
    listing = Listing(Interrupted(b"folder", {}), 1, Failures())
    assert names(listing, 0, 500) == NAMES[:500]
    with pytest.raises(InterruptError):
        listing.page(500, 1000)
    assert names(listing, 500, 1000) == NAMES[500:1500]
    assert names(listing, 1500, 1000) == NAMES[1500:]
