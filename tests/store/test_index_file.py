"""The index's file: not believed when a power cut may have torn it, replaced under its readers."""

import logging
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from store.description import create_repository
from store.errors import ForkedError
from store.format.pack import pack_name
from store.index import index as index_module
from store.index.database import connect
from store.keep.check import check
from store.repository import Repository
from tests.store.history import write_instants


class Place:
    """A repository and its cache, opened again and again."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "repository"
        self.cache = folder / "cache"
        create_repository(self.root)

    def open(self) -> Repository:
        return Repository(self.root, self.cache)

    def newest(self, repository: Repository) -> Path:
        return self.root / pack_name(1, repository.backend.list(1)[-1])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def reboot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "boot_id", lambda: "another run of the system")


def times(repository: Repository) -> list[int]:
    return [instant.time_ns for instant in repository.history.instants("vm1")]


def test_a_pack_that_a_power_cut_took_is_forgotten_by_an_index_that_followed_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    repository = place.open()
    kept = write_instants(repository, "vm1", [b"one", b"two"])
    write_instants(repository, "vm1", [b"ghost"])
    assert len(times(repository)) == 3
    ghost = place.newest(repository)
    repository.close()
    ghost.unlink()
    reboot(monkeypatch)
    repository = place.open()
    assert times(repository) == kept
    assert "packs that are not there, as after a power cut" in caplog.text
    new = write_instants(repository, "vm1", [b"three"])
    assert times(repository) == kept + new
    assert not check(repository, deep=True, progress=lambda _: None).findings
    repository.close()


def test_another_pack_under_the_number_of_one_that_a_power_cut_took_is_noticed(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    repository = place.open()
    kept = write_instants(repository, "vm1", [b"one"])
    write_instants(repository, "vm1", [b"ghost"])
    assert len(times(repository)) == 2
    place.newest(repository).unlink()
    repository.close()
    elsewhere = Repository(place.root, tmp_path / "cache of another machine")
    new = write_instants(elsewhere, "vm1", [b"two"])
    elsewhere.close()
    reboot(monkeypatch)
    repository = place.open()
    assert times(repository) == kept + new
    repository.close()


def test_without_a_reboot_a_newest_pack_that_is_gone_is_a_loss_and_no_capture_goes_on(place: Place):
    repository = place.open()
    write_instants(repository, "vm1", [b"one", b"two"])
    assert len(times(repository)) == 2
    place.newest(repository).unlink()
    with pytest.raises(ForkedError, match="gone, which this host knew"):
        repository.logs.state("vm1")
    repository.index.rebuild(repository.reader)
    assert len(times(repository)) == 1
    repository.close()


def test_an_index_torn_anywhere_is_made_again_after_a_reboot(
    place: Place, monkeypatch: pytest.MonkeyPatch, soak: bool
):
    repository = place.open()
    kept = write_instants(repository, "vm1", [bytes([n]) * 70_000 for n in range(1, 9)])
    times(repository)
    repository.close()
    file = (repository.cache / "index.sqlite").resolve()
    whole = file.read_bytes()
    random = Random(1)
    reboot(monkeypatch)
    for attempt in range(100 if soak else 12):
        torn = bytearray(whole)
        page = random.randrange(len(whole) // 4096) * 4096
        kind = random.randrange(3)
        if kind == 0:
            del torn[page:]
        elif kind == 1:
            torn[page : page + 4096] = bytes(4096)
        else:
            torn[page : page + 4096] = random.randbytes(4096)
        file = (repository.cache / "index.sqlite").resolve()
        file.write_bytes(torn)
        repository = place.open()
        assert times(repository) == kept
        findings = check(repository, deep=attempt % 4 == 0, progress=lambda _: None).findings
        assert not findings, (page, kind, findings)
        repository.close()
        file = (repository.cache / "index.sqlite").resolve()
        with closing(connect(file)) as connection:
            connection.change("UPDATE meta SET boot = 'before'")
    left = sorted(path.name for path in repository.cache.iterdir())
    assert len(left) <= 4, left


def test_who_has_the_index_open_goes_on_when_it_is_replaced(place: Place):
    repository = place.open()
    kept = write_instants(repository, "vm1", [b"one", b"two"])
    seen: list[list[int]] = []
    replaced, looked = threading.Event(), threading.Event()

    def read() -> None:
        seen.append(times(repository))
        looked.set()
        replaced.wait(30)
        seen.append(times(repository))
        repository.close()

    reader = threading.Thread(target=read)
    reader.start()
    looked.wait(30)
    other = place.open()
    other.index.rebuild(other.reader)
    new = write_instants(other, "vm1", [b"three"])
    replaced.set()
    reader.join(30)
    assert seen == [kept, kept + new]
    assert times(other) == kept + new
    other.close()
    repository.close()


def test_an_older_format_is_made_again_without_a_word(
    place: Place, caplog: pytest.LogCaptureFixture
):
    repository = place.open()
    kept = write_instants(repository, "vm1", [b"one"])
    repository.close()
    file = repository.cache / "index.sqlite"
    file.unlink()
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE meta (format INTEGER, repository BLOB)")
    connection.close()
    with caplog.at_level(logging.WARNING):
        repository = place.open()
        assert times(repository) == kept
    assert caplog.text == ""
    repository.close()
