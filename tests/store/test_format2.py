"""A frozen repository of format 2: every later timefs reads it, byte for byte."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from store.history import FileKind
from store.keep.check import check
from store.repository import Repository

FROZEN = Path(__file__).parent / "format2"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A copy: what is frozen is never opened for writing."""
    shutil.copytree(FROZEN / "repo", tmp_path / "repo")
    return Repository(tmp_path / "repo", tmp_path / "cache")


def test_every_file_of_every_instant_reads_as_frozen(repository: Repository):
    expected = json.loads((FROZEN / "expected.json").read_text())
    found = [
        {
            "machine": machine,
            "time_ns": instant.time_ns,
            "fuzzy": instant.fuzzy,
            "file": state.number,
            "name": state.name,
            "kind": state.kind.value,
            "size_bytes": state.size,
            "sha256": hashlib.sha256(
                repository.history.open(instant, state).read(0, state.size)
            ).hexdigest(),
        }
        for machine in repository.history.machines()
        for instant in repository.history.instants(machine)
        for state in repository.history.files(instant)
    ]
    assert found == expected
    assert {entry["kind"] for entry in expected} == {kind.value for kind in FileKind}


def test_the_frozen_repository_is_whole(repository: Repository):
    report = check(repository, deep=True, progress=lambda _bytes: None)
    assert report.findings == []
    assert report.packs == 6


def test_history_goes_on_from_the_frozen_repository(repository: Repository):
    before = [state.sequence for state in repository.history.instants("vm1")]
    state = repository.logs.state("vm1")
    transaction = repository.logs.begin(state, repository.history.now_ns())
    transaction.write(1, 0, b"new")
    transaction.instant(repository.history.now_ns(), fuzzy=False)
    transaction.commit()
    assert [state.sequence for state in repository.history.instants("vm1")][:-1] == before
    instant = repository.history.latest("vm1")
    (file,) = [f for f in repository.history.files(instant) if f.number == 1]
    assert repository.history.open(instant, file).read(0, 3) == b"new"
    assert check(repository, deep=True, progress=lambda _bytes: None).findings == []
