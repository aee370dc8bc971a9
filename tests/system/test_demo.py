"""The demo: safe to run twice at once, and clean however it ends."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.program import PROGRAM

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("fuse")]
PROJECT = Path(__file__).parents[2]
INTERRUPTIONS = 8


@pytest.fixture(autouse=True)
def counted(soak: bool) -> None:
    """Minutes of work: `make soak`."""
    if not soak:
        pytest.skip("a whole demo takes long: give --soak")


def start(folder: Path) -> "subprocess.Popen[str]":
    """The demo in a process group of its own, as a terminal would start it."""
    return subprocess.Popen(
        ["demo/run"],
        cwd=PROJECT,
        env=os.environ | {"TMPDIR": str(folder), "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def assert_clean(folder: Path) -> None:
    assert str(folder) not in Path("/proc/mounts").read_text()
    assert list(folder.iterdir()) == []


def test_two_at_once_end_well(tmp_path: Path):
    demos = [start(tmp_path) for _ in range(2)]
    for demo in demos:
        said, _ = demo.communicate(timeout=280)
        assert demo.returncode == 0, said
        for words in ("docs/report.txt: OK", "sql/database.mdf: OK", "byte-identical", "Next"):
            assert words in said
    assert_clean(tmp_path)


@pytest.mark.parametrize("seed", range(INTERRUPTIONS))
def test_interrupted_anywhere_it_leaves_nothing(tmp_path: Path, seed: int):
    demo = start(tmp_path)
    time.sleep(random.Random(seed).uniform(0.2, 20))
    if demo.poll() is None:
        os.killpg(demo.pid, signal.SIGINT)
    said, _ = demo.communicate(timeout=60)
    assert demo.returncode in (0, 130), said
    assert "Traceback" not in said
    assert_clean(tmp_path)
