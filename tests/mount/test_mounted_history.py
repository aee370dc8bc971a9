# ruff: noqa: PTH208, PTH116
# The system calls themselves are what is tested here.
"""The time tree over a real mount: what the kernel keeps, and what it asks again."""

import os
import subprocess
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.timetree.memory_history import MemoryHistory
from timefs.mount.mounting import mounted
from timefs.times import SECOND_NS
from timefs.timetree import TimeTree

TEN = 1_714_557_600 * SECOND_NS  # 2024-05-01T10:00:00Z
MINUTE = 60 * SECOND_NS
pytestmark = pytest.mark.system


@pytest.fixture
def history() -> MemoryHistory:
    history = MemoryHistory(TEN + 60 * MINUTE)
    history.seal("vm1", TEN, {"disk.bin": b"one", "notes.txt": b"same"})
    history.seal("vm1", TEN + MINUTE, {"disk.bin": b"two"})
    return history


@pytest.fixture
def machine(history: MemoryHistory, tmp_path: Path) -> Generator[Path, None, None]:
    with mounted(TimeTree(history).root, tmp_path):
        yield tmp_path / "vm1"


def eventually(path: Path, content: bytes) -> bool:
    """Whether `path` has `content` within a few times of what the kernel may keep."""
    for _ in range(100):
        if path.read_bytes() == content:
            return True
        time.sleep(0.05)
    return False


def test_below_the_watermark_nothing_is_asked_again(history: MemoryHistory, machine: Path):
    path = machine / "2024-05-01T10:00:30/disk.bin"
    assert path.read_bytes() == b"one"
    os.listdir(path.parent)
    time.sleep(1.2)
    os.stat(machine)  # itself never kept
    history.asked.clear()
    for _ in range(50):
        assert path.read_bytes() == b"one"
        assert os.listdir(path.parent) == ["disk.bin", "notes.txt"]
    assert history.asked["at"] == 0
    assert history.asked["files"] == 0
    assert history.asked["open"] == 0


def test_above_the_watermark_content_changes_when_a_new_instant_is_sealed(
    history: MemoryHistory, machine: Path
):
    later, latest = machine / "2024-05-01T10:05/disk.bin", machine / "latest/disk.bin"
    assert later.read_bytes() == latest.read_bytes() == b"two"
    history.seal("vm1", TEN + 3 * MINUTE, {"disk.bin": b"three"})
    assert eventually(later, b"three")
    assert eventually(latest, b"three")
    assert (machine / "2024-05-01T10:01:30/disk.bin").read_bytes() == b"two"
    history.seal("vm1", TEN + 4 * MINUTE, {"disk.bin": b"four"})
    assert eventually(later, b"four")


def test_new_instants_and_machines_appear_without_remounting(history: MemoryHistory, machine: Path):
    assert not (machine / "2024-05-01T10:59:59/new.bin").exists()
    history.seal("vm1", TEN + 3 * MINUTE, {"new.bin": b"n"})
    history.seal("vm2", TEN, {"other.bin": b"o"})
    assert "2024-05-01T10:03:00Z" in os.listdir(machine)
    assert eventually(machine / "2024-05-01T10:03:00Z/new.bin", b"n")
    for _ in range(60):
        if (machine.parent / "vm2").exists():
            break
        time.sleep(0.05)
    assert (machine.parent / "vm2/latest/other.bin").read_bytes() == b"o"


def test_what_is_open_stays_what_it_was(history: MemoryHistory, machine: Path):
    with (machine / "latest/disk.bin").open("rb", buffering=0) as file:
        folder = os.open(machine / "latest", os.O_RDONLY | os.O_DIRECTORY)
        try:
            history.seal("vm1", TEN + 3 * MINUTE, {"disk.bin": b"three"})
            assert eventually(machine / "latest/disk.bin", b"three")
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert file.read() == b"two"
            within = os.open("disk.bin", os.O_RDONLY, dir_fd=folder)
            try:
                assert os.read(within, 10) == b"two"
            finally:
                os.close(within)
        finally:
            os.close(folder)


def test_the_same_folder_under_two_names_stays_at_both(machine: Path):
    """The kernel moves a directory that it meets twice; each name must have its own node."""
    done = subprocess.run(
        ["sh", "-c", f"cd {machine}/latest && ls {machine}/2024-05-01T10:01:00Z && /bin/pwd"],
        capture_output=True,
        timeout=30,
        check=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["disk.bin", "notes.txt", f"{machine}/latest"]


def test_an_unchanged_file_has_one_page_cache_at_all_instants(
    history: MemoryHistory, machine: Path
):
    first = machine / "2024-05-01T10:00/notes.txt"
    second = machine / "2024-05-01T10:01/notes.txt"
    assert first.read_bytes() == b"same"
    assert os.stat(first).st_ino == os.stat(second).st_ino
    assert second.read_bytes() == b"same"
    assert history.asked["open"] == 1


def test_an_instant_says_which_it_is(history: MemoryHistory, machine: Path):
    history.seal("vm1", TEN + 3 * MINUTE, {"disk.bin": b"torn"}, fuzzy=True)
    instant = machine / "2024-05-01T10:04"
    assert os.getxattr(instant, "user.timefs.actual") == b"2024-05-01T10:03:00.000000000Z"
    assert os.getxattr(instant, "user.timefs.fuzzy") == b"1"
    assert os.listxattr(machine / "latest") == ["user.timefs.actual"]


def test_a_time_before_the_first_instant_or_after_now_is_absent(machine: Path):
    for name in ("2024-05-01T09:59", "2024-05-01T11:00:01", "2024-02-30", "nonsense"):
        with pytest.raises(FileNotFoundError):
            os.stat(machine / name)
