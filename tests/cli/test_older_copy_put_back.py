"""Every command of a host that knew more than an older copy holds says so, in one line."""

import shutil

import pytest

from tests.cli.program import Place


@pytest.fixture
def put_back(place: Place) -> Place:
    """This host captured twice; then the copy from between was put back, and another went on."""
    repo, disk = place.folder / "repo", place.folder / "disk"
    place.run("-r", "repo", "init")
    for name in ("other", "vm1"):
        disk.write_bytes(name.encode() * 4096)
        place.run("-r", "repo", "capture", name, "disk")
    shutil.copytree(repo, place.folder / "copy")
    disk.write_bytes(b"known" * 4096)
    place.run("-r", "repo", "capture", "vm1", "disk")
    shutil.rmtree(repo)
    shutil.copytree(place.folder / "copy", repo)
    disk.write_bytes(b"later" * 4096)
    place.run("-r", "repo", "--cache", "elsewhere", "capture", "vm1", "disk")
    return place


@pytest.mark.parametrize(
    "command",
    ["ls vm1", "ls vm1/latest", "cat vm1/latest/disk", "restore vm1/latest/disk back", "log vm1",
     "find vm1 -name disk", "du vm1", "capture vm1 disk"],
)  # fmt: skip
def test_whoever_knew_the_other_line_reads_and_continues_nothing(put_back: Place, command: str):
    done = put_back.run("-r", "repo", *command.split(), code=None)
    assert done.code in (3, 5)
    assert "the same up to pack 1, another from there on" in done.err
    assert "timefs rebuild" in done.err
    assert "later" not in done.out
    assert "known" not in done.out


def test_other_machines_and_hosts_go_on(put_back: Place):
    assert put_back.run("-r", "repo", "cat", "other/latest/disk").out == "other" * 4096
    done = put_back.run("-r", "repo", "--cache", "elsewhere", "cat", "vm1/latest/disk")
    assert done.out == "later" * 4096
    listed = put_back.run("-r", "repo", "log", code=3)
    assert "other" in listed.out
    assert "vm1" not in listed.out


def test_a_rebuild_takes_what_is_there_for_the_history(put_back: Place):
    put_back.run("-r", "repo", "rebuild")
    assert put_back.run("-r", "repo", "cat", "vm1/latest/disk").out == "later" * 4096
    put_back.run("-r", "repo", "capture", "vm1", "disk")
    assert "line" in put_back.run("-r", "repo", "check", "--deep").out
