"""A clock that was ahead once: what is refused, how it goes on, and what can be read meanwhile."""

import os
from pathlib import Path

import pytest

from store.clock import Clock
from store.description import create_repository
from store.errors import NotFoundError, UsageError
from store.repository import Repository
from timefs.recorder import NamedSource, Order, Recorded, record, silent
from timefs.timetree import TimeTree
from timefs.tree import Leaf, walk

HOUR_NS = 3600 * 1_000_000_000
NOW_NS = 1_790_000_000 * 1_000_000_000  # 2026-09-21T14:13:20Z
AHEAD_NS = 1_924_992_000 * 1_000_000_000  # 2031-01-01T00:00:00Z


class SetClock(Clock):
    time_ns = NOW_NS

    def now_ns(self) -> int:
        return self.time_ns


class Host:
    """A repository on a host whose clock is set by hand, and a file."""

    def __init__(self, folder: Path) -> None:
        self.clock = SetClock()
        create_repository(folder / "repo")
        self.repository = Repository(folder / "repo", folder / "cache", self.clock)
        self.path = folder / "disk"

    def capture(self, machine: str, content: bytes, at_ns: int | None = None) -> Recorded:
        self.path.write_bytes(content)
        order = Order(machine, [NamedSource("disk", self.path)], at_ns=at_ns)
        return record(self.repository, order, silent())

    def read(self, *path: bytes) -> bytes:
        leaf = walk(TimeTree(self.repository.history).root, path)
        assert isinstance(leaf, Leaf)
        return leaf.open().read(0, 1 << 20)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def once_ahead(host: Host, content: bytes) -> None:
    host.clock.time_ns = AHEAD_NS
    host.capture("vm1", content)
    host.clock.time_ns = NOW_NS


@pytest.mark.parametrize("at_ns", [None, NOW_NS - HOUR_NS])
def test_the_refusal_says_both_times_and_what_to_do(host: Host, at_ns: int | None):
    once_ahead(host, b"then")
    packs = sorted((host.path.parent / "repo" / "packs").rglob("*"))
    with pytest.raises(UsageError) as refused:
        host.capture("vm1", b"now", at_ns)
    said = str(refused.value)
    for part in ("2031-01-01T00:00:00", "2026-09-21T14:13:20Z", "another machine's name"):
        assert part in said
    assert said.isprintable()
    assert sorted((host.path.parent / "repo" / "packs").rglob("*")) == packs


def test_it_goes_on_under_another_name_and_shares_what_is_stored(host: Host):
    content = os.urandom(1 << 20)
    once_ahead(host, content)
    done = host.capture("vm1-again", content)
    assert done.new_bytes <= len(content) // 8
    host.clock.time_ns += HOUR_NS
    host.capture("vm1-again", b"later")
    assert host.read(b"vm1-again", b"-30m", b"disk") == content
    assert host.read(b"vm1-again", b"latest", b"disk") == b"later"
    assert host.read(b"vm1", b"latest", b"disk") == content


def test_what_was_captured_before_and_then_can_be_read(host: Host):
    host.capture("vm1", b"before")
    once_ahead(host, b"then")
    host.clock.time_ns = NOW_NS + HOUR_NS
    assert host.read(b"vm1", b"-1s", b"disk") == b"before"
    assert host.read(b"vm1", b"2031-01-01T00:00:00Z", b"disk") == b"then"
    assert host.read(b"vm1", b"latest", b"disk") == b"then"


def test_a_time_before_the_first_instant_is_told_when_that_was(host: Host):
    once_ahead(host, b"then")
    with pytest.raises(NotFoundError, match="first instant of vm1, 2031-01-01T00:00:00Z; "):
        host.read(b"vm1", b"-1s", b"disk")


def test_it_goes_on_by_itself_once_the_time_has_come(host: Host):
    once_ahead(host, b"then")
    host.clock.time_ns = AHEAD_NS + 1
    host.capture("vm1", b"after")
    assert host.read(b"vm1", b"latest", b"disk") == b"after"
