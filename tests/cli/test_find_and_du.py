"""`timefs find`, `du` and `ls --recursive` on a guest volume, against what ntfs-3g shows of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from typing import Any

import pytest

from tests.guest.ntfs.volume import mounted, small_volume

pytestmark = pytest.mark.system
Timefs = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("find") / "disk"
    small_volume(path)
    return path


@pytest.fixture(scope="module")
def timefs(volume: Path) -> Timefs:
    folder = volume.parent
    options = ["-r", str(folder / "repo"), "--cache", str(folder / "cache"), "--json"]

    def run(*command: str) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "timefs.cli.main", *options, *command],
            capture_output=True,
            check=True,
            timeout=60,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    run("init")
    run("capture", "vm1", f"disk.img={volume}")
    return run


def shown(volume: Path) -> dict[str, os.stat_result]:
    """Everything that ntfs-3g shows below the root, without the file system's own files."""
    with mounted(volume, "ro") as root:
        paths = [path for path in root.rglob("*") if not path.name.startswith("$")]
        return {str(path.relative_to(root)): path.lstat() for path in paths}


def test_find_at_an_instant_names_each_file_once_whichever_form_it_is_shown_in(
    timefs: Timefs, volume: Path
):
    found = [each["path"] for each in timefs("find", "vm1/latest", "-iname", "NAME 0?")]
    expected = [path for path in shown(volume) if path.startswith("many/name 0")]
    assert sorted(found) == sorted(f"vm1/latest/disk/{path}" for path in expected)
    assert len(found) == 10


def test_find_minds_the_case_unless_asked_not_to(timefs: Timefs):
    assert timefs("find", "vm1/latest/disk", "-name", "DATA") == []
    assert timefs("find", "vm1/latest/disk", "-name", "data") == [
        {"path": "vm1/latest/disk/data", "kind": "file"}
    ]


def test_a_recursive_listing_has_every_name_with_its_size(timefs: Timefs, volume: Path):
    listed = {each["name"]: each["size_bytes"] for each in timefs("ls", "-R", "vm1/latest/disk")}
    expected = shown(volume)
    assert set(listed) == set(expected)
    files = {name for name, status in expected.items() if S_ISREG(status.st_mode)}
    assert {name: listed[name] for name in files} == {
        name: expected[name].st_size for name in files
    }


def test_du_adds_up_what_the_guest_has_allocated_and_counts_a_hard_link_once(
    timefs: Timefs, volume: Path
):
    status = shown(volume)
    files = {each.st_ino: each for each in status.values() if S_ISREG(each.st_mode)}
    *below, total = timefs("du", "vm1/latest/disk")
    assert {each["path"] for each in below} == {
        f"vm1/latest/disk/{name}" for name in status if "/" not in name
    }
    assert sum(each["size_bytes"] for each in below) == total["size_bytes"]
    (ours,) = (each for each in below if each["path"] == "vm1/latest/disk/system")  # WOF
    assert total["files"] == len(files) + 1
    assert total["size_bytes"] == sum(each.st_size for each in files.values()) + ours["size_bytes"]
    rounded_up = sum(each.st_blocks * 512 for each in files.values())  # content within records too
    allocated = total["allocated_bytes"] - ours["allocated_bytes"]
    assert 0 <= rounded_up - allocated < 512 * len(files)
