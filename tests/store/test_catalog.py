"""The catalog: what `log` answers, how tables follow, and several processes at once."""

import subprocess
import sys
from pathlib import Path

import pytest

import store.catalog.catalog
from store.catalog.catalog import Catalog
from store.description import create_repository
from store.history import FileKind
from store.log.transaction import SealPolicy
from store.repository import Repository
from tests.store.history import write_instants


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    create_repository(tmp_path / "repo")
    return Repository(tmp_path / "repo", tmp_path / "cache")


def catalog_of(repository: Repository) -> Catalog:
    repository.index.follow(repository.reader)
    return Catalog.of(repository)


def test_the_log_says_what_each_instant_changed_and_cost(repository: Repository):
    first = b"a" * 4096 + b"b" * 4096 + bytes(8192)
    times = write_instants(repository, "vm1", [first, first, b"c" * 4096 + first[4096:]])
    entries = catalog_of(repository).log("vm1")
    assert [entry.time_ns for entry in entries] == times
    assert [entry.machine for entry in entries] == ["vm1"] * 3
    assert [entry.files for entry in entries] == [1, 1, 1]
    assert [entry.changed_bytes for entry in entries] == [len(first)] * 3
    assert [entry.new_bytes for entry in entries] == [8192, 0, 4096]
    packs = repository.root / "packs/00000001"
    stored = [(packs / f"{number:010d}").stat().st_size for number in (1, 2, 3)]
    assert [entry.stored_bytes for entry in entries] == stored


def test_answers_are_whole_whether_the_tables_follow_or_not(repository: Repository):
    write_instants(repository, "vm1", [b"1", b"2"])
    catalog = catalog_of(repository)
    before = catalog.log()
    catalog.follow()
    assert catalog.log() == before
    write_instants(repository, "vm2", [b"3"])
    catalog = catalog_of(repository)
    entries = catalog.log()
    assert entries[:2] == before
    assert len(entries) == 3
    catalog.follow()
    assert catalog.log() == entries
    assert [entry.machine for entry in catalog.log("vm2")] == ["vm2"]
    assert catalog.log("vm3") == []
    assert list(catalog.differences()) == []


def test_a_machine_whose_first_capture_was_given_up_is_in_the_log(tmp_path: Path):
    create_repository(tmp_path / "small packs")
    repository = Repository(
        tmp_path / "small packs", tmp_path / "its cache", seal=SealPolicy(blocks=1)
    )
    transaction = repository.logs.begin(repository.logs.state("vm1"), repository.history.now_ns())
    transaction.declare(1, "disk", FileKind.CONTAINER)
    for number in range(8):
        transaction.write(1, number * 4096, b"never committed %d" % number)
    transaction.abandon()
    assert 1 in repository.backend.list(1)
    (time_ns,) = write_instants(repository, "vm1", [b"1"])
    assert [entry.time_ns for entry in catalog_of(repository).log("vm1")] == [time_ns]


def test_following_is_cut_into_pieces_of_bounded_size(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store.catalog.catalog, "BATCH_PACKS_MAX", 3)
    times = write_instants(repository, "vm1", [b"%d" % number for number in range(8)])
    catalog = catalog_of(repository)
    catalog.follow()
    assert [entry.time_ns for entry in catalog.log()] == times
    assert list(catalog.differences()) == []
    assert len(list((repository.root / "catalog/packs").glob("*.parquet"))) == 3


def test_a_name_that_is_no_text_does_not_stop_the_catalog(repository: Repository):
    transaction = repository.logs.begin(repository.logs.state("vm1"), 5)
    transaction.declare(1, "caf\udce9", FileKind.CONTAINER)
    transaction.resize(1, 0)
    transaction.instant(5, fuzzy=True)
    transaction.commit()
    catalog = catalog_of(repository)
    catalog.follow()
    (entry,) = catalog.log()
    assert (entry.time_ns, entry.fuzzy) == (5, True)
    with catalog.connect() as connection:
        names = connection.execute("SELECT name FROM names ORDER BY file").fetchall()
    assert names == [("vm1",), ("caf\\xe9",)]
    (state,) = repository.history.files(repository.history.latest("vm1"))
    assert state.name == "caf\udce9"


def test_days_are_partitions(repository: Repository):
    for number, machine in enumerate(("vm1", "vm1", "vm2")):
        transaction = repository.logs.begin(repository.logs.state(machine), number * 86400 * 10**9)
        transaction.instant(number * 86400 * 10**9, fuzzy=False)
        transaction.commit()
    catalog_of(repository).follow()
    days = {path.parent.name for path in (repository.root / "catalog/rows").rglob("*.parquet")}
    assert days == {"day=1970-01-01", "day=1970-01-02", "day=1970-01-03"}
    assert len(catalog_of(repository).log()) == 3


FOLLOWER = """
import sys
from pathlib import Path
from store.catalog.catalog import Catalog
from store.repository import Repository
from tests.store.history import write_instants
repository = Repository(Path(sys.argv[1]), Path(sys.argv[2]))
for number in range(5):
    write_instants(repository, sys.argv[3], [b"%d" % number])
    repository.index.follow(repository.reader)
    Catalog.of(repository).follow()
"""


def test_processes_that_follow_at_once_write_every_row_once(repository: Repository, tmp_path: Path):
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", FOLLOWER, str(repository.root)),
                *(str(tmp_path / cache), machine),
            ],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
            text=True,
        )
        for machine, cache in (("vm1", "cache"), ("vm2", "cache"), ("vm3", "other"))
    ]
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert said == ["", "", ""]
    catalog = catalog_of(repository)
    catalog.follow()
    assert list(catalog.differences()) == []
    assert len(catalog.log()) == 15
    with catalog.connect() as connection:
        assert connection.execute("SELECT count(*) FROM packs").fetchall() == [(15,)]
