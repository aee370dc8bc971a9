"""A person at a terminal sees a bar with rate and time to go; a script sees nothing of it."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import World
from tests.cli.program import PROGRAM, Place

pytestmark = pytest.mark.system


def watched(place: Place, *words: str | Path) -> str:
    """Everything that `timefs` shows on a terminal."""
    terminal, ours = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, *words],
        cwd=place.folder,
        env=place.environment | {"TERM": "xterm", "COLUMNS": "120"},
        stdin=ours,
        stdout=ours,
        stderr=ours,
    )
    os.close(ours)
    shown = b""
    try:
        while piece := os.read(terminal, 65536):
            shown += piece
    except OSError:  # EIO: the other side is closed
        pass
    finally:
        os.close(terminal)
    assert process.wait(60) == 0, shown
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


@pytest.fixture
def made(place: Place) -> Place:
    place.run("-r", "repo", "init")
    (place.folder / "disk").write_bytes(os.urandom(48 << 20))
    return place


def test_a_terminal_shows_how_far_how_fast_and_how_long(made: Place):
    calls = (
        ("capture", "vm1", "disk"),
        ("restore", "vm1/latest/disk", "back"),
        ("check", "--deep"),
    )
    for words in calls:
        shown = watched(made, "-r", "repo", *words)
        assert re.search(r"\d/48\.\d MiB|48\.\d/48\.\d MiB", shown), shown
        assert re.search(r"[0-9.]+ [KMG]iB/s", shown), shown
        assert re.search(r"\d:\d\d:\d\d|-:--:--", shown), shown
        assert shown.rstrip().splitlines()[-1], "the result stands where the bar was"


def test_the_total_of_a_folder_is_that_of_its_files(world: World, place: Place):
    path = "vm1/2026-05-01T10:00/disk"
    shown = watched(world.place, "-r", "repo", "restore", path, place.folder)
    assert re.search(r" 2\.0/2\.0 MiB ", shown), shown


def test_no_terminal_no_bar(made: Place):
    for words in (["capture", "vm1", "disk"], ["restore", "vm1/latest/disk", "x"], ["check"]):
        done = made.run("-r", "repo", *words)
        assert done.err == ""
        assert "\x1b" not in done.out
        assert done.out.count("\n") == 1
