# ruff: noqa: PTH208
# The system calls themselves are what is tested here.
"""Requests that are stuck: whoever sent them can end, and nobody else waits."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mount.serve_stuck import STUCK
from timefs.mount.fuse.mounting import detach

ROOT = Path(__file__).parents[2]
HANG_SECONDS = 20
pytestmark = pytest.mark.system

SEEK = """
import os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
os.lseek(file, 0, os.SEEK_DATA)
"""
SEEK_UNDER_SIGNALS = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.lseek.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_int]
signal.signal(signal.SIGALRM, lambda *_: None)
file = os.open(sys.argv[1], os.O_RDONLY)
print("open", flush=True)
print(libc.lseek(file, 0, os.SEEK_HOLE), ctypes.get_errno(), flush=True)
"""


class Mount(NamedTuple):
    top: Path
    log: Path


@pytest.fixture
def mount(tmp_path: Path) -> Generator[Mount]:
    place = Mount(tmp_path / "mount", tmp_path / "log")
    place.top.mkdir()
    command = [sys.executable, "-m", "tests.mount.serve_stuck", str(place.top)]
    with place.log.open("w") as log:
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield place
    finally:
        server.kill()
        server.communicate(timeout=HANG_SECONDS)
        detach(place.top, lazily=True)


def seeking(file: Path, program: str = SEEK) -> "subprocess.Popen[str]":
    """A program that has a file open and then seeks in it."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, file],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def end(process: "subprocess.Popen[str]", number: signal.Signals) -> int:
    process.send_signal(number)
    process.communicate(timeout=HANG_SECONDS)
    return process.returncode


def test_others_are_served_while_more_requests_are_stuck_than_there_are_threads(mount: Mount):
    stuck = [seeking(mount.top / f"slow {number}") for number in range(STUCK)]
    stuck += [
        subprocess.Popen(["cat", mount.top / f"slow {number}"], text=True, stdout=subprocess.PIPE)
        for number in range(STUCK)
    ]
    try:
        for command in (["ls", "-l", mount.top], ["cat", mount.top / "good"]):
            done = subprocess.run(
                command, capture_output=True, timeout=HANG_SECONDS, check=True, text=True
            )
            assert "good" in done.stdout or done.stdout == "of another machine"
    finally:
        for process in stuck:
            assert end(process, signal.SIGKILL) == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_who_waits_for_a_stuck_request_can_be_killed(mount: Mount, number: signal.Signals):
    assert end(seeking(mount.top / "deaf"), number) == -number


def test_who_handles_an_interrupt_from_the_terminal_gets_it(mount: Mount):
    assert end(seeking(mount.top / "deaf"), signal.SIGINT) == -signal.SIGINT


def test_a_signal_that_ends_nothing_fails_no_request(mount: Mount):
    process = seeking(mount.top / "waiting", SEEK_UNDER_SIGNALS)
    process.send_signal(signal.SIGALRM)
    for _ in range(5):  # the kernel tells of the signal before it hands on these
        assert (mount.top / "good").read_text() == "of another machine"
        assert not (mount.top / "missing").exists()
    assert not (mount.top / "go").exists()
    said, _ = process.communicate(timeout=HANG_SECONDS)
    assert said.split() == ["0", "0"]


def test_who_was_signalled_before_can_be_killed_yet(mount: Mount):
    process = seeking(mount.top / "deaf")
    process.send_signal(signal.SIGWINCH)
    assert end(process, signal.SIGKILL) == -signal.SIGKILL


def test_what_costs_too_much_is_an_error_and_one_line(mount: Mount):
    for _ in range(2):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.listdir(mount.top / "costly")
    assert (mount.top / "good").read_text() == "of another machine"
    (line,) = mount.log.read_text().splitlines()
    assert line.startswith("costly: given up: one request may read 256 MiB")
