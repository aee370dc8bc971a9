"""Names that are kept of folders: as many as there is room for, however they are spread."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from store.errors import CorruptError
from timefs.guest.names import reader_of_names

NAMES_MAX = 1000


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timefs.guest.names.NAMES_MAX", NAMES_MAX)


class One(NamedTuple):
    name: bytes


class Folders:
    """Folders by how many names they have, and how often each was read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __call__(self, count: int) -> Iterator[One]:
        self.read.append(count)
        for number in range(count):
            yield One(b"%d" % number)
        if count % 2:
            raise CorruptError(f"damage behind {count} names")


def test_a_large_folder_is_read_once():
    folders = Folders()
    names = reader_of_names(folders)
    for _ in range(3):
        found = names(NAMES_MAX - 2)
        assert found is not None
        assert found.find(b"7") == One(b"7")
        assert found.find(b"missing") is None
    assert folders.read == [NAMES_MAX - 2]


def test_a_folder_with_too_many_names_is_known_to_have_too_many():
    folders = Folders()
    names = reader_of_names(folders)
    assert names(NAMES_MAX + 2) is None
    assert names(NAMES_MAX + 2) is None
    assert len(folders.read) == 1


def test_damage_behind_the_names_is_kept_and_not_paid_for_again():
    folders = Folders()
    found = reader_of_names(folders)
    for _ in range(3):
        kept = found(5)
        assert kept is not None
        assert kept.find(b"4") == One(b"4")
        with pytest.raises(CorruptError, match="damage behind 5 names"):
            kept.find(b"missing")
    assert folders.read == [5]


def test_the_folders_asked_for_longest_ago_make_room():
    folders = Folders()
    names = reader_of_names(folders)
    half = NAMES_MAX // 2
    for count in (half - 2, half - 4, half - 2, half - 6, half - 2, half - 4):
        names(count)
    assert folders.read == [half - 2, half - 4, half - 6, half - 4]


def test_many_small_folders_stay_known():
    folders = Folders()
    names = reader_of_names(folders)
    for _ in range(2):
        for count in range(0, 60, 2):  # 870 names, and one for each folder
            names(count)
    assert len(folders.read) == 30
