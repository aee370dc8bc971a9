"""An older copy put back, a copy gone on with, a second claim: two histories never mix."""

import shutil
from pathlib import Path
from random import Random

import numpy as np
import pytest

from store.description import create_repository
from store.errors import ForkedError, StrayError
from store.format.pack import NO_HEAD, Head, PackIdentity, build_pack, pack_name
from store.format.row import ROW
from store.format.statement import encode_statement
from store.keep.check import Report, check
from store.repository import Repository
from tests.store.history import write_instants


class Hosts:
    """One repository and hosts with caches of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "repo"
        create_repository(self.root)

    def host(self, name: str) -> Repository:
        return Repository(self.root, self.folder / f"cache of {name}")

    def keep_copy(self) -> None:
        shutil.copytree(self.root, self.folder / "older copy")

    def put_back(self) -> None:
        shutil.rmtree(self.root)
        shutil.copytree(self.folder / "older copy", self.root)


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    return Hosts(tmp_path)


def capture(repository: Repository, *contents: bytes) -> None:
    repository.logs.notice_losses()
    write_instants(repository, "vm1", contents)


def newest(repository: Repository) -> bytes:
    history = repository.history
    instant = history.latest("vm1")
    (state,) = history.files(instant)
    return history.open(instant, state).read(0, state.size)


def checked(repository: Repository) -> Report:
    return check(repository, deep=True, progress=lambda _bytes: None)


def blocks(seed: int) -> bytes:
    return Random(seed).randbytes(8 * 4096)


@pytest.mark.parametrize("captures", [0, 1, 2, 3])
def test_a_host_that_knew_what_an_older_copy_lacks_reads_and_continues_nothing(
    hosts: Hosts, captures: int
):
    first, second = hosts.host("first"), hosts.host("second")
    capture(first, blocks(1))
    hosts.keep_copy()
    capture(first, blocks(2))
    assert newest(first) == blocks(2)
    hosts.put_back()
    for seed in range(captures):
        capture(second, blocks(10 + seed))
    with pytest.raises(ForkedError, match="the same up to pack 1"):
        newest(first)
    with pytest.raises(ForkedError, match="timefs rebuild"):
        capture(first, blocks(3))
    with pytest.raises(ForkedError):
        newest(hosts.host("first"))  # a new process with the old cache
    report = checked(hosts.host("first"))
    assert any("the same up to pack 1" in finding.message for finding in report.findings)
    truth = blocks(9 + captures) if captures else blocks(1)
    assert newest(hosts.host("third")) == truth
    again = hosts.host("first")
    again.index.rebuild(again.reader)
    assert newest(again) == truth
    capture(again, blocks(4))
    assert newest(hosts.host("third")) == blocks(4)
    assert checked(again).findings == []


def test_a_pack_of_equal_size_and_number_of_another_line_is_noticed(hosts: Hosts):
    first, second = hosts.host("first"), hosts.host("second")
    capture(first, blocks(1))
    hosts.keep_copy()
    capture(first, blocks(2))
    assert newest(first) == blocks(2)
    hosts.put_back()
    capture(second, blocks(3))
    capture(second, blocks(4))
    with pytest.raises(ForkedError):
        capture(first, blocks(5))
    assert newest(second) == blocks(4)
    assert checked(second).findings == []


def test_a_copy_of_a_repository_has_a_cache_of_its_own(hosts: Hosts, tmp_path: Path):
    original = Repository(hosts.root, tmp_path / "cache")
    capture(original, blocks(1))
    shutil.copytree(hosts.root, tmp_path / "copy")
    copy = Repository(tmp_path / "copy", tmp_path / "cache")
    capture(copy, bytes(8192))
    assert newest(original) == blocks(1)
    assert newest(copy) == bytes(8192)
    assert checked(original).findings == checked(copy).findings == []


def forge(hosts: Hosts, writer: int, number: int, head: Head, names: list[str]) -> None:
    repository = hosts.host("enemy")
    identity = PackIdentity(
        bytes.fromhex(repository.id), writer, number, 9, bytes(16), 1, last=True, previous=head
    )
    statement = encode_statement(np.empty(0, ROW), [], names)
    repository.backend.create(pack_name(writer, number), build_pack(identity, [], b"", statement))


@pytest.mark.parametrize("writer", [0, 7])
def test_who_claims_anothers_machine_is_named_and_shown_nowhere(hosts: Hosts, writer: int):
    repository = hosts.host("first")
    capture(repository, blocks(1))
    forge(hosts, writer, 0, NO_HEAD, ["vm1"])
    for name in ("first", "new"):
        host = hosts.host(name)
        assert newest(host) == blocks(1)
        (finding,) = checked(host).findings
        assert f"{writer:08x}" in finding.message
    capture(repository, blocks(2))
    assert newest(hosts.host("new")) == blocks(2)


def test_a_pack_that_was_not_made_behind_the_newest_does_not_count(
    hosts: Hosts, caplog: pytest.LogCaptureFixture
):
    repository = hosts.host("first")
    capture(repository, blocks(1))
    forge(hosts, 1, 2, Head(1, bytes(32)), ["vm1"])
    for name in ("first", "new"):
        host = hosts.host(name)
        assert newest(host) == blocks(1)
        assert "made behind another pack" in caplog.text
        assert any("made behind another pack" in each.message for each in checked(host).findings)
        with pytest.raises(StrayError, match="made behind another"):
            capture(host, blocks(2))
    (hosts.root / pack_name(1, 2)).unlink()
    capture(repository, blocks(2))
    assert newest(hosts.host("new")) == blocks(2)


def test_check_says_which_line_a_repository_is(hosts: Hosts):
    repository = hosts.host("first")
    capture(repository, blocks(1))
    line = checked(repository).line
    assert line == checked(hosts.host("second")).line
    capture(repository, blocks(2))
    assert line != checked(repository).line == checked(hosts.host("second")).line


@pytest.mark.parametrize("what", ["packs/00000001", "packs"])
def test_packs_that_are_all_gone_are_noticed_as_well(hosts: Hosts, what: str):
    repository = hosts.host("first")
    capture(repository, blocks(1))
    assert newest(repository) == blocks(1)
    (hosts.root / what).rename(hosts.folder / "gone")
    for host in (repository, hosts.host("first")):
        with pytest.raises(ForkedError, match="gone, which this host knew"):
            newest(host)
        with pytest.raises(ForkedError):
            capture(host, blocks(2))
    (hosts.folder / "gone").rename(hosts.root / what)
    assert newest(hosts.host("first")) == blocks(1)
