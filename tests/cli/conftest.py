"""What the command line's tests share: a folder to work in, and a machine with a history."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from store.repository import cache_name
from tests.cli.guest_disk import GuestDisk
from tests.cli.program import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty folder."""
    return Place(tmp_path)


class World(NamedTuple):
    """A machine with a disk that was captured twice; nobody changes it."""

    place: Place
    disk: Path
    """The disk as it is now, and was at the second instant."""
    sums: list[dict[str, str]]
    """sha256 of every guest file at each instant."""

    def copied_to(self, place: Place) -> None:
        """Its repository and cache, to be changed by one test."""
        for name in ("repo", "cache"):
            shutil.copytree(self.place.folder / name, place.folder / name)
        (cache,) = (place.folder / "cache" / "timefs").iterdir()
        cache.rename(cache.with_name(cache_name(place.folder / "repo", cache.name[:32])))

    @property
    def repository(self) -> Path:
        return self.place.folder / "repo"


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    place = Place(tmp_path_factory.mktemp("world"))
    disk = GuestDisk(place.folder)
    sums: list[dict[str, str]] = []
    place.run("-r", "repo", "init")
    for generation in (1, 2):
        disk.work(generation)
        sums.append(disk.sums)
        at = f"2026-05-0{generation}T10:00:00Z"
        place.run("-r", "repo", "capture", "vm1", disk.path, "--at", at)
    return World(place, disk.path, sums)
