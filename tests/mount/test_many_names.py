# ruff: noqa: PTH208
# The system calls themselves are what is tested here.
"""Of more names than a mount may hold for the kernel, those met first are forgotten."""

import os
from collections.abc import Generator
from contextlib import chdir
from pathlib import Path

import pytest

from tests.timetree.memory_tree import MemoryFile, MemoryFolder
from timefs.mount import handles
from timefs.mount.core import FileSystem
from timefs.mount.failures import Failures
from timefs.mount.fuse import server as fuse_server
from timefs.mount.fuse.mounting import attach, detach
from timefs.mount.fuse.server import Server
from timefs.mount.listing import BEHIND_ENTRIES, Listing

HELD = 2000
FOLDERS, FILES = 40, 250


def content() -> MemoryFolder:
    folders: dict[bytes, MemoryFolder] = {}
    for number in range(FOLDERS):
        names = [b"%d-%d" % (number, file) for file in range(FILES)]
        folders[b"%d" % number] = MemoryFolder(
            b"%d" % number, {name: MemoryFile(name, name) for name in names}
        )
    return MemoryFolder(b"top", folders)


@pytest.fixture(params=[fuse_server.MINOR, 44], ids=["by number", "by name"])
def filesystem(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Generator[FileSystem]:
    monkeypatch.setattr(handles, "HELD_MAX", HELD)
    monkeypatch.setattr(fuse_server, "MINOR", request.param)
    filesystem = FileSystem(content())
    server = Server(attach(tmp_path, allow_other=False), filesystem, 2)
    server.negotiate()
    server.start()
    yield filesystem
    detach(tmp_path, lazily=True)
    server.wait(10)


def numbers(top: Path) -> dict[str, int]:
    """The inode number of every name, as a listing and as stat tell it, which agree."""
    found: dict[str, int] = {}
    for folder in os.listdir(top):
        for entry in os.scandir(top / folder):
            assert entry.stat().st_ino == entry.inode()
            found[entry.name] = entry.inode()
    return found


@pytest.mark.system
@pytest.mark.root
def test_what_the_kernel_holds_is_bounded_and_stays_what_it_is(
    filesystem: FileSystem, tmp_path: Path
):
    with (tmp_path / "0" / "0-0").open("rb") as first:
        seen = numbers(tmp_path)
        assert len(seen) == FOLDERS * FILES
        assert len(filesystem.handles) < HELD + 2 * handles.PRUNED_TOGETHER
        assert numbers(tmp_path) == seen
        assert len(filesystem.handles) < HELD + 2 * handles.PRUNED_TOGETHER
        assert first.read() == b"0-0"
        assert os.fstat(first.fileno()).st_ino == seen["0-0"]
    assert (tmp_path / "0" / "0-0").read_bytes() == b"0-0"


@pytest.mark.system
@pytest.mark.root
def test_a_folder_that_is_somebodys_stays_where_it_is(filesystem: FileSystem, tmp_path: Path):
    with chdir(tmp_path / "0"):
        numbers(tmp_path)
        numbers(tmp_path)
        assert len(filesystem.handles) < HELD + 2 * handles.PRUNED_TOGETHER
        assert os.getcwd() == str(tmp_path / "0")  # noqa: PTH109 - what the kernel says
        assert Path("0-1").read_bytes() == b"0-1"


def test_a_listing_keeps_no_more_than_its_reader_may_go_back_to():
    names = [b"%06d" % number for number in range(4 * BEHIND_ENTRIES)]
    folder = MemoryFolder(b"large", {name: MemoryFile(name, b"") for name in names})
    listing = Listing(folder, 1, Failures())
    step = 1000
    for position in range(0, len(names), step):
        page = listing.page(position, step)
        assert [record.name for record in page] == names[position : position + step]
        assert listing.kept <= 2 * BEHIND_ENTRIES + 2 * step
    assert not listing.page(len(names), step)
    for position in (len(names) - step, 5, 2 * BEHIND_ENTRIES, len(names) - 7):
        page = listing.page(position, step)
        assert [record.name for record in page] == names[position : position + step]
