"""What a folder is told to be: a repository, of this format, under its own key."""

import json
from pathlib import Path
from typing import Any

import pytest

from store.description import create_repository, describe
from store.errors import (
    DamagedError,
    ExistsError,
    NoRepositoryError,
    TimefsError,
    UnsupportedError,
    WrongKeyError,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    create_repository(tmp_path / "deep/repo")
    return tmp_path / "deep/repo"


def change(root: Path, **fields: object) -> None:
    path = root / "repository.json"
    known: dict[str, Any] = json.loads(path.read_text())
    path.chmod(0o600)
    path.write_text(json.dumps(known | fields))


def test_no_two_repositories_share_an_id_or_a_key(root: Path, tmp_path: Path):
    create_repository(tmp_path / "other")
    first, second = describe(root), describe(tmp_path / "other")
    assert (first.format, first.cipher) == (1, 0)
    assert first.id != second.id
    assert first.key != second.key


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path):
    (tmp_path / "something").write_bytes(b"1")
    with pytest.raises(ExistsError, match="found something"):
        create_repository(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["something"]


def test_a_repository_is_not_made_twice(root: Path):
    before = describe(root)
    with pytest.raises(ExistsError):
        create_repository(root)
    assert describe(root) == before


def test_a_place_below_a_file_is_said(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(TimefsError):
        create_repository(tmp_path / "file/repo")


def test_no_repository_is_said_with_how_to_make_one(tmp_path: Path):
    with pytest.raises(NoRepositoryError, match="init"):
        describe(tmp_path)


@pytest.mark.parametrize("fields", [{"format": 2}, {"cipher": 1}])
def test_a_newer_format_is_refused(root: Path, fields: dict[str, int]):
    change(root, **fields)
    with pytest.raises(UnsupportedError, match="use a newer timefs"):
        describe(root)


@pytest.mark.parametrize("key", ["00" * 32, "ab" * 16])
def test_another_key_is_refused(root: Path, key: str):
    change(root, key=key)
    with pytest.raises(WrongKeyError):
        describe(root)


@pytest.mark.parametrize("fields", [{"key": "no hex"}, {"id": "zz"}, {"key": 5}])
def test_a_description_that_makes_no_sense_is_damaged(root: Path, fields: dict[str, object]):
    change(root, **fields)
    with pytest.raises(DamagedError, match="put the file back"):
        describe(root)
