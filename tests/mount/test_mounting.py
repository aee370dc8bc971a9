# ruff: noqa: PTH208, PTH116
# The system calls themselves are what is tested here.
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from store.errors import BusyError, NotFolderError, NotFoundError, TimefsError, UsageError
from timefs.mount.mounting import unmount
from timefs.mount.points import absolute, check_mountpoint, mount_at

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.system


class Place(NamedTuple):
    """Where one test mounts."""

    mountpoint: Path
    repository: Path
    log: Path

    def command(self, mode: str, what: str) -> list[str]:
        module = "tests.mount.serve_memory"
        paths = [str(self.mountpoint), str(self.repository), str(self.log)]
        return [sys.executable, "-m", module, mode, what, *paths]


@pytest.fixture
def place(tmp_path: Path) -> Generator[Place, None, None]:
    place = Place(tmp_path / "mount", tmp_path / "repository", tmp_path / "log")
    place.mountpoint.mkdir()
    place.repository.mkdir()
    yield place
    if mount_at(absolute(place.mountpoint)) is not None:
        subprocess.run(["umount", "-l", place.mountpoint], timeout=30, check=False)


def run(place: Place, mode: str, what: str = "small") -> "subprocess.CompletedProcess[str]":
    command = place.command(mode, what)
    return subprocess.run(
        command, cwd=ROOT, timeout=60, check=False, stderr=subprocess.PIPE, text=True
    )


def start(place: Place, what: str = "small") -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        place.command("foreground", what), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    rest, _ = process.communicate(timeout=30)
    return process.returncode, rest


def number_of(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:
        call()
    return caught.value.errno


def test_a_background_mount_answers_when_the_command_returns(place: Place):
    assert run(place, "background").returncode == 0
    assert (place.mountpoint / "vm1/latest/disk.bin").read_bytes() == b"one"
    unmount(place.mountpoint)
    assert os.listdir(place.mountpoint) == []
    began, ended, closed = until_logged(place, "closed").splitlines()
    assert began.startswith(f"{place.mountpoint}: mounted by process ")
    assert ended == f"{place.mountpoint}: the mount ended: it was unmounted"
    assert closed == "closed"


def until_logged(place: Place, last: str) -> str:
    """What the log says once its last line is there."""
    for _ in range(200):
        said = place.log.read_text()
        if last in said:
            return said
        time.sleep(0.05)
    raise AssertionError(place.log.read_text())


def server_of(place: Place) -> int:
    """The process that serves a background mount."""
    return int(place.log.read_text().split("mounted by process ")[-1].split()[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_background_mount_says_which_signal_ended_it(place: Place, number: signal.Signals):
    assert run(place, "background").returncode == 0
    os.kill(server_of(place), number)
    until_logged(place, f"{place.mountpoint}: the mount ended: by {number.name}\n")


def test_a_background_mount_that_crashes_says_where(place: Place):
    assert run(place, "background").returncode == 0
    os.kill(server_of(place), signal.SIGSEGV)
    assert "Thread" in until_logged(place, "Fatal Python error: Segmentation fault")


def test_the_next_background_mount_says_that_the_last_was_killed(place: Place):
    assert run(place, "background").returncode == 0
    killed = server_of(place)
    os.kill(killed, signal.SIGKILL)
    subprocess.run(["umount", "-l", place.mountpoint], timeout=30, check=True)
    for _ in range(2):
        assert run(place, "background").returncode == 0
        unmount(place.mountpoint)
        until_logged(place, "closed")
    assert place.log.read_text().count(f"process {killed} ended without a word: killed?\n") == 1


def test_a_background_mount_reports_what_its_server_raised(place: Place):
    done = run(place, "background", "damaged")
    assert done.returncode == 5
    assert done.stderr == (
        "DamagedError: pack 3: footer: expected checksum 1, got 2; run timefs check\n"
    )
    assert not os.path.ismount(place.mountpoint)


def test_a_server_that_dies_before_it_is_ready_is_reported(place: Place):
    done = run(place, "background", "broken")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert str(place.log) in done.stderr
    assert "ZeroDivisionError" in place.log.read_text()


def test_foreground_ends_when_it_is_unmounted(place: Place):
    process = start(place)
    assert os.listdir(place.mountpoint) == ["vm1"]
    unmount(place.mountpoint)
    assert finish(process) == (0, "closed\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_unmounts_and_ends_the_server(place: Place, number: signal.Signals, code: int):
    process = start(place)
    process.send_signal(number)
    assert finish(process) == (code, "closed\n")
    assert mount_at(absolute(place.mountpoint)) is None


def test_a_signal_ends_a_mount_in_use_too(place: Place):
    process = start(place)
    file = os.open(place.mountpoint / "vm1/latest/disk.bin", os.O_RDONLY)
    try:
        process.send_signal(signal.SIGTERM)
        assert finish(process) == (0, "closed\n")
        assert mount_at(absolute(place.mountpoint)) is None
        assert number_of(lambda: os.read(file, 1)) == errno.ENOTCONN
    finally:
        with suppress(OSError):  # the descriptor is gone all the same
            os.close(file)


def test_unmounting_a_busy_mount_says_so_and_leaves_it(place: Place):
    process = start(place)
    file = os.open(place.mountpoint / "vm1/latest/disk.bin", os.O_RDONLY)
    with pytest.raises(BusyError, match="in use"):
        unmount(place.mountpoint)
    assert os.read(file, 10) == b"one"
    os.close(file)
    unmount(place.mountpoint)
    assert finish(process)[0] == 0


def test_a_dead_mount_is_recognised_and_can_be_taken_away(place: Place):
    process = start(place)
    process.kill()
    process.communicate(timeout=30)
    assert number_of(lambda: os.stat(place.mountpoint)) == errno.ENOTCONN
    with pytest.raises(BusyError, match=r"server has died.*timefs unmount"):
        check_mountpoint(place.mountpoint, place.repository)
    unmount(place.mountpoint)
    check_mountpoint(place.mountpoint, place.repository)


def test_mounting_twice_is_refused(place: Place):
    process = start(place)
    done = run(place, "background")
    assert done.returncode == 4
    assert "mounted there already" in done.stderr
    unmount(place.mountpoint)
    finish(process)


def refusal(mountpoint: Path, repository: Path) -> TimefsError:
    with pytest.raises(TimefsError) as caught:
        check_mountpoint(mountpoint, repository)
    assert "\n" not in str(caught.value)
    assert str(mountpoint) in str(caught.value)
    return caught.value


def test_places_where_nothing_can_be_mounted(place: Place):
    missing, repository = place.mountpoint / "none", place.repository
    file = place.mountpoint / "file"
    file.touch()
    within = repository / "packs"
    within.mkdir()
    link = place.mountpoint / "link"
    link.symlink_to(repository)
    assert isinstance(refusal(missing, repository), NotFoundError)
    assert isinstance(refusal(file, repository), NotFolderError)
    assert isinstance(refusal(within, repository), UsageError)
    assert isinstance(refusal(repository, repository), UsageError)
    assert isinstance(refusal(repository.parent, repository), UsageError)
    assert isinstance(refusal(link, repository), UsageError)
    assert isinstance(refusal(Path("/proc"), repository), BusyError)


def test_unmounting_what_is_not_ours_is_refused(place: Place):
    with pytest.raises(NotFoundError, match="nothing is mounted"):
        unmount(place.mountpoint)
    with pytest.raises(UsageError, match="got one of proc"):
        unmount(Path("/proc"))


def test_mount_points_with_odd_names_are_found(tmp_path: Path):
    odd = tmp_path / "a b\\040\tü"
    odd.mkdir()
    place = Place(odd, tmp_path / "repository", tmp_path / "log")
    process = start(place)
    assert mount_at(absolute(odd)) is not None
    unmount(odd)
    assert finish(process)[0] == 0
