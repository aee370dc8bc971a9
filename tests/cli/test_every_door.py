"""A path holds the same by every door: mount, `ls`, `find`, `cat`, `restore` agree on each node."""

import os
from collections.abc import Generator, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from store.repository import Repository
from tests.cli.program import Place
from tests.guest.volumes import KINDS, made
from timefs.mount.mounting import mounted
from timefs.timetree import TimeTree

pytestmark = [pytest.mark.system, pytest.mark.root]

DOORS: Final = [kind for kind in KINDS if kind not in {"ext2", "ext3"} and "-" not in kind]
"""One of a kind: each costs a few processes."""

FIRST: Final = "FIRST.TXT"
"""The root's second entry, which has the lowest place of all files."""


class House(NamedTuple):
    """A repository that holds a disk of each kind."""

    place: Place
    instant: Path
    """The mounted instant."""
    tops: dict[str, Path]
    """What each disk was filled from."""
    listed: dict[str, dict[str, Any]]
    """What `ls` says of each path below the instant."""
    searched: dict[str, str]
    """What `find` says that each is."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    folder = tmp_path_factory.mktemp("house")
    place, point, tops = Place(folder), folder / "mount", dict[str, Path]()
    point.mkdir()
    volumes: list[Path] = []
    for kind in DOORS:
        with suppress(pytest.skip.Exception):
            volume, tops[kind] = made(kind, folder)
            volumes.append(volume)
    place.run("-r", "repo", "init")
    place.run("-r", "repo", "capture", "vm1", *volumes)
    listed = place.run("-r", "repo", "--json", "ls", "-R", "vm1/latest").records()
    found = place.run("-r", "repo", "--json", "find", "vm1/latest", "-name", "*").records()
    repository = Repository(folder / "repo", folder / "another cache")
    with mounted(TimeTree(repository.history).root, point):
        yield House(
            place,
            point / "vm1" / "latest",
            tops,
            {each["name"]: each for each in listed},
            {os.path.relpath(each["path"], "vm1/latest"): each["kind"] for each in found},
        )


def seen(top: Path) -> dict[str, tuple[Any, ...]]:
    """What is below a folder of this host, by path: kind, content, and of files the time."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in top.rglob("*"):
        name = str(path.relative_to(top))
        if path.is_symlink():
            found[name] = ("link", path.readlink())
        elif path.is_dir():
            found[name] = ("folder",)
        else:
            found[name] = ("file", path.read_bytes(), path.stat().st_mtime_ns)
    return found


def below(folder: str, paths: Iterable[str]) -> set[str]:
    """Those of some paths that lie below a folder, from there."""
    return {path.removeprefix(folder) for path in paths if path.startswith(folder)}


@pytest.mark.parametrize("kind", DOORS)
@pytest.mark.usefixtures("fuse")
def test_every_door_shows_what_was_written(kind: str, house: House, tmp_path: Path):
    if kind not in house.tops:
        pytest.skip(f"nothing here makes {kind}")
    expected, disk = seen(house.tops[kind]), f"{kind}/"
    through_mount = seen(house.instant / kind)
    assert expected.items() <= through_mount.items()
    assert seen(house.instant / f"{kind}.d" / "p0") == through_mount

    assert below(disk, house.listed) == below(disk, house.searched) == through_mount.keys()
    for name, (what, *content) in through_mount.items():
        listed = house.listed[disk + name]
        assert listed["kind"] == house.searched[disk + name] == what
        if what == "file":
            assert listed["size_bytes"] == len(content[0])
    run = house.place.run
    said = run("-r", "repo", "cat", f"vm1/latest/{disk}{FIRST}").out
    assert said.encode(errors="surrogateescape") == expected[FIRST][1]
    run("-r", "repo", "restore", f"vm1/latest/{kind}.d/p0", tmp_path / "restored")
    assert seen(tmp_path / "restored") == through_mount
