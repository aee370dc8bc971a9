"""Every name that a capture takes works everywhere: stored, logged, listed, read, mounted."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from store.catalog.catalog import Catalog
from store.description import create_repository
from store.repository import Repository
from tests.cli.program import Place
from tests.guest.kernel import need, run
from timefs.mount.mounting import mounted
from timefs.recorder import NAME_BYTES_MAX, NamedSource, Order, record, silent
from timefs.timetree import TimeTree
from timefs.tree import Leaf, walk

ODD = [
    *(" ", "a=b", "-r", "\\", "%s", "catalog", "latest", "2026-05-01", "\u00e9", "e\u0301"),
    *("x" * 124, "x" * 125, "x" * 255, "\u9577" * 85, "\U0001f4be" * 63),
]
"""Of machines and files alike."""


def promised(name: str) -> bool:
    """Whether docs/format/pack.md says that it can be one."""
    return name.isprintable() and "/" not in name and len(name.encode()) <= NAME_BYTES_MAX


printable = st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"], include_characters=" ")
names = st.text(printable, min_size=1, max_size=255).filter(promised)


class History:
    """A repository in which machines are captured, each with a file named like it."""

    def __init__(self, folder: Path) -> None:
        create_repository(folder / "repo")
        self.repository = Repository(folder / "repo", folder / "cache")
        self._source = folder / "source"

    def capture(self, machine: str, file: str) -> None:
        self._source.write_text(f"{machine}/{file}")
        record(self.repository, Order(machine, [NamedSource(file, self._source)]), silent())


@settings(max_examples=10)
@given(names.filter(lambda name: name[0] not in "@."), names.filter(lambda name: name not in "..."))
@example("x" * 255, "y" * 255)
@example("x" * 125, ".hidden")
@example("\u9577" * 85, "@volumes")
def test_any_name_that_is_promised_is_stored_logged_and_read(machine: str, file: str):
    with TemporaryDirectory() as folder:
        history = History(Path(folder))
        history.capture(machine, file)
        history.capture(machine, file)
        repository = history.repository
        assert repository.history.machines() == [machine]
        catalog = Catalog.of(repository)
        catalog.follow()
        assert [entry.machine for entry in catalog.log(machine)] == [machine, machine]
        root = TimeTree(repository.history).root
        node = walk(root, [name.encode() for name in (machine, "latest", file)])
        assert isinstance(node, Leaf)
        assert node.open().read(0, 4096).decode() == f"{machine}/{file}"


@pytest.mark.system
def test_odd_names_work_in_every_command_and_in_the_mount(place: Place, fuse: None):
    history = History(place.folder)
    for name in ODD:
        history.capture(name, name)
    for words in (["log"], ["ls"]):
        records = place.run("-r", "repo", "--cache", "cache", *words, "--json").records()
        assert {record.get("machine") or record["name"] for record in records} == set(ODD), words
    point = place.folder / "mounted"
    point.mkdir()
    with mounted(TimeTree(history.repository.history).root, point):
        assert {path.name for path in point.iterdir()} == set(ODD)
        for name in ODD:
            assert [path.name for path in (point / name / "latest").iterdir()] == [name]
            assert (point / name / "latest" / name).read_text() == f"{name}/{name}"
    for name in ("x" * 255, "-r"):
        path = f"{name}/latest/{name}"
        said = place.run("-r", "repo", "--cache", "cache", "cat", "--", path)
        assert said.out == f"{name}/{name}"
        place.run("-r", "repo", "--cache", "cache", "restore", "--", path, place.folder)
        assert (place.folder / name).read_text() == f"{name}/{name}"
        place.run("-r", "repo", "--cache", "cache", "capture", "--", name, place.folder / name)


@pytest.mark.system
@pytest.mark.parametrize("name", ["d" * 255, "d" * 251 + ".img"])
def test_what_is_shown_of_a_disk_of_the_longest_name_can_be_reached(
    place: Place, name: str, fuse: None
):
    need("mkfs.ext4")
    source = place.folder / "source"
    source.mkdir()
    (source / "file").write_bytes(b"guest")
    run("mkfs.ext4", "-q", "-F", "-d", source, place.folder / "disk.img", "4M")
    (place.folder / "history").mkdir()
    history = History(place.folder / "history")
    disk = NamedSource(name, place.folder / "disk.img")
    record(history.repository, Order("vm1", [disk]), silent())
    point = place.folder / "mounted"
    point.mkdir()
    stem = name.removesuffix(".img")
    with mounted(TimeTree(history.repository.history).root, point):
        latest = point / "vm1" / "latest"
        shown = {path.name for path in latest.iterdir()}
        assert shown >= {name, f"{stem}.d"}
        for way in (f"{name}.d", f"{stem}.d"):
            assert [path.name for path in (latest / way).iterdir()]
        for way in (f"{name}.raw", f"{stem}.raw", f"{stem}.vhdx"):
            assert (latest / way).stat().st_size >= 4 << 20
