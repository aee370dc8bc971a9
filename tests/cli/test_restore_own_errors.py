"""An error costs the entry it belongs to and what is below it; the rest is restored and counted."""

import os
import resource
import stat
import tempfile
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest

from store.errors import CorruptError, DeniedError, ExistsError, TimefsError
from tests.cli.conftest import World
from tests.cli.program import Place
from tests.cli.restoring import everything, file, folder, restored
from tests.guest.fat.exfat import exfat_mount
from tests.guest.kernel import need, run
from tests.timetree.memory_tree import (
    TIME_NS,
    FailingFolder,
    FailingNode,
    MemoryFile,
    MemoryFolder,
    MemoryLink,
    SparseImage,
)
from timefs.tree import Attributes, Folder, Node

NOBODY = 65534


class PrivateFile(MemoryFile):
    """A file that the guest shows to its owner alone."""

    def attributes(self) -> Attributes:
        return super().attributes()._replace(mode=stat.S_IFREG | 0o600)


class UnreadableFolder(MemoryFolder):
    """A folder of which the names can be read, but not what it is."""

    def attributes(self) -> Attributes:
        raise CorruptError("record 9: damaged")


def subtree(name: bytes) -> Folder:
    """A folder with three names below it."""
    files = {b"%d" % number: file(b"x", b"%b %d" % (name, number)) for number in range(2)}
    return folder(name, {b"deeper": folder(name + b" deeper", files)})


def among_others(odd: Mapping[bytes, Node]) -> Folder:
    """A folder with two files that any file system can hold, and others between them."""
    return folder(b"root", {b"a": file(b"a", b"a"), **odd, b"z": file(b"z", b"z")})


def only_others_are_there(target: Path) -> bool:
    return everything(target) == {"name", "name/a", "name/z"}


def test_names_that_are_too_long_cost_themselves_and_what_is_below(tmp_path: Path):
    odd: dict[bytes, Node] = {
        b"f" * 256: file(b"x"),
        "\u9577".encode() * 255: subtree(b"far"),
        b"l" * 1000: MemoryLink(b"link", b"a"),
    }
    done, errors = restored(among_others(odd), tmp_path)
    assert only_others_are_there(tmp_path)
    assert (done.files, done.folders, done.failed, done.unreached) == (2, 1, 3, 3)
    assert all(str(error).endswith(": file name too long") for error in errors)
    assert all(str(error).startswith(f"{tmp_path}/name/") for error in errors)


def test_what_lies_below_a_file_in_the_way_is_counted(tmp_path: Path):
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "taken").write_bytes(b"mine")
    done, errors = restored(among_others({b"taken": subtree(b"taken")}), tmp_path, force=True)
    assert [type(error) for error in errors] == [ExistsError]
    assert (done.files, done.unreached) == (2, 3)
    assert (tmp_path / "name" / "taken").read_bytes() == b"mine"


def test_folders_that_form_a_graph_are_counted_once(tmp_path: Path):
    """Each of 40 folders holds the next one twice: 2 ** 40 ways lead through them."""
    tree = folder(b"bottom", {})
    for level in range(40):
        tree = folder(b"%d" % level, {b"one": tree, b"two": tree})
    done, _ = restored(among_others({b"x" * 300: tree}), tmp_path)
    assert (done.failed, done.unreached) == (1, 80)


def test_a_listing_that_breaks_off_ends_that_folder_alone(tmp_path: Path):
    broken = FailingFolder(b"b", {b"first": file(b"1", b"1")}, CorruptError("index: damaged"))
    _, errors = restored(among_others({b"broken": broken}), tmp_path)
    assert [str(error) for error in errors] == [f"{tmp_path}/name/broken: index: damaged"]
    assert (tmp_path / "name/broken/first").read_bytes() == b"1"
    assert (tmp_path / "name/broken").stat().st_mtime_ns == TIME_NS
    assert (tmp_path / "name/z").read_bytes() == b"z"


def test_a_folder_of_unknown_permissions_stays_its_owners_alone(tmp_path: Path):
    odd: dict[bytes, Node] = {
        b"folder": UnreadableFolder(b"u", {b"in": file(b"in", b"in")}),
        b"file": FailingNode(b"f", CorruptError("record 8: damaged")),
    }
    _, errors = restored(among_others(odd), tmp_path)
    assert sorted(str(error)[-17:] for error in errors) == [
        "record 8: damaged",
        "record 9: damaged",
    ]
    assert stat.S_IMODE((tmp_path / "name/folder").stat().st_mode) == 0o700
    assert (tmp_path / "name/folder/in").read_bytes() == b"in"
    assert not (tmp_path / "name/file").exists()
    assert (tmp_path / "name/z").read_bytes() == b"z"


@pytest.mark.parametrize("target", [b"", b"a\0b", b"t" * 5000])
def test_a_link_that_no_file_system_can_hold(tmp_path: Path, target: bytes):
    done, _ = restored(among_others({b"link": MemoryLink(b"link", target)}), tmp_path)
    assert done.failed == 1
    assert only_others_are_there(tmp_path)


def test_names_are_told_in_one_plain_line(tmp_path: Path):
    tree = among_others({b"one\ntwo\x1b[2J\xff" + b"n" * 300: file(b"x")})
    _, errors = restored(tree, tmp_path)
    assert [str(error).isprintable() for error in errors] == [True]
    assert r"one\ntwo\x1b[2J" in str(errors[0])


@pytest.fixture
def exfat(tmp_path: Path) -> Generator[Path]:
    """A file system without links, permissions, case, large files or all characters."""
    need("mkfs.exfat", "mount.exfat-fuse", file_system="fuseblk")
    image = tmp_path / "exfat.img"
    run("truncate", "--size=64M", image)
    run("mkfs.exfat", image)
    with exfat_mount(image, tmp_path / "exfat", "rw") as mounted:
        yield mounted


@pytest.mark.system
@pytest.mark.root
def test_what_another_file_system_cannot_hold_costs_itself(exfat: Path):
    odd: dict[bytes, Node] = {
        b"10:30": file(b"x"),
        b"what?": subtree(b"what"),
        b"\xff\xfe": file(b"x"),
        b"link": MemoryLink(b"link", b"a"),
        b"0600": PrivateFile(b"private", b"secret"),
    }
    done, errors = restored(among_others(odd), exfat)
    assert everything(exfat) == {"name", "name/a", "name/z", "name/0600"}
    assert (exfat / "name/0600").read_bytes() == b"secret"
    assert (exfat / "name/z").stat().st_mtime == TIME_NS // 10**9
    assert (done.files, len(errors), done.unreached) == (3, 4, 3)


@pytest.mark.system
@pytest.mark.root
def test_of_names_that_mean_the_same_there_the_first_stays(exfat: Path, tmp_path: Path):
    names = (b"Readme", b"README", b"other")
    tree = folder(b"root", {name: file(name, name) for name in names})
    for _ in range(2):
        done, errors = restored(tree, exfat, force=True)
        assert (done.files, len(errors)) == (2, 1)
        assert "README: this file system takes it for Readme, restored before" in str(errors[0])
        assert (exfat / "name" / "readme").read_bytes() == b"Readme"
        (exfat / "name" / "other").write_bytes(b"changed")
    for _ in range(2):  # where they are two names
        assert restored(tree, tmp_path, force=True).errors == []


def test_a_file_larger_than_the_file_system_takes_costs_itself(tmp_path: Path):
    """As on FAT, which takes 4 GiB; here a limit of this process's."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = file(SparseImage(1 << 40, {0: b"head"}), b"large")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, limits[1]))
    try:
        _, errors = restored(among_others({b"large": large}), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [str(error) for error in errors] == [f"{tmp_path}/name/large: file too large"]
    assert only_others_are_there(tmp_path)


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
def test_a_folder_that_may_not_be_written_costs_what_is_in_it():
    with tempfile.TemporaryDirectory() as below:
        target = Path(below)
        target.chmod(0o755)
        mine, shut, theirs = (target / name for name in ("name", "name/shut", "name/theirs"))
        for path, owner, mode in ((mine, NOBODY, 0o755), (shut, NOBODY, 0o555), (theirs, 0, 0o777)):
            path.mkdir()
            os.chown(path, owner, owner)
            path.chmod(mode)
        tree = among_others({b"shut": subtree(b"shut"), b"theirs": subtree(b"theirs")})
        os.seteuid(NOBODY)
        try:
            done, errors = restored(tree, target)
        finally:
            os.seteuid(0)
        assert [type(error) for error in errors] == [DeniedError]
        assert str(errors[0]) == f"{target}/name/shut/deeper: permission denied"
        assert (done.files, done.unreached) == (4, 2)
        assert everything(shut) == set()
        assert stat.S_IMODE(theirs.stat().st_mode) == 0o777


def test_a_folder_that_cannot_be_made_at_the_top_is_the_commands_error(tmp_path: Path):
    with pytest.raises(TimefsError, match="file name too long"):
        restored(subtree(b"top"), tmp_path / ("t" * 256))


@pytest.mark.system
def test_the_command_says_how_many_failed_and_were_not_reached(world: World, place: Place):
    words = ("-r", "repo", "restore", "vm1/latest/disk", place.folder / "out", "--json")
    whole = world.place.run(*words).records()[0]
    below = len(everything(place.folder / "out" / "docs"))
    (place.folder / "out").rename(place.folder / "before")
    (place.folder / "out").mkdir()
    (place.folder / "out" / "disk").mkdir()
    (place.folder / "out" / "disk" / "docs").write_bytes(b"mine")
    said = world.place.run(*words, code=3)
    (record,) = said.records()
    assert (whole["failed"], whole["unreached"]) == (0, 0)
    assert (record["failed"], record["unreached"]) == (1, below)
    assert f"1 not restored, nor the {below} below them" in said.err
