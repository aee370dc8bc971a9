"""The README's tour: every command of its console blocks, run for real, shows what it says."""

import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.guest_disk import GuestDisk
from tests.cli.program import PROGRAM, SECONDS_MAX, Place

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("fuse")]
README = Path(__file__).parents[2] / "README.md"
SECOND = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")


class Step(NamedTuple):
    """One command of the tour, and what the README shows for it."""

    command: str
    shown: str


def steps() -> list[Step]:
    """The tour."""
    blocks = re.findall(r"^```console\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
    found: list[Step] = []
    for block in blocks:
        assert block.startswith("$ ")
        for piece in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = piece.partition("\n")
            found.append(Step(command, shown))
    return found


def shape(text: str) -> list[str]:
    """A text without what differs from machine to machine: numbers, units, times, columns."""
    text = SECOND.sub("TIME", text)
    text = re.sub(r"[0-9]+(\.[0-9]+)? ([KMG]i)?B\b", "SIZE", text)
    text = re.sub(r"\b[0-9a-f]{16}\b", "LINE", text)
    return re.sub(r"[0-9]+", "N", text).split()


class Tour:
    """The tour's places and seconds, as they are here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seconds: dict[str, str] = {}
        self._environment = Place(folder).environment
        for name in ("backup", "vms", "mnt", "work"):
            (folder / name).mkdir()

    def here(self, text: str) -> str:
        """A text of the README as it must read here."""
        for name in ("backup", "vms", "mnt"):
            text = re.sub(rf"(?<![\w.])/{name}/", f"{self._folder}/{name}/", text)
        return SECOND.sub(lambda second: self._seconds.get(second[0], second[0]), text)

    def unlisted(self, asked: str) -> None:
        """The README's unlisted second is here the one after the first instant."""
        first = min(self._seconds.values())
        moment = time.strptime(first, "%Y-%m-%dT%H:%M:%S")
        after = time.gmtime(time.mktime(moment) - time.timezone + 1)
        self._seconds[asked] = time.strftime("%Y-%m-%dT%H:%M:%S", after)

    def run(self, step: Step) -> str:
        """Run a command; answers what it printed, and learns what its seconds are called here."""
        command = self.here(step.command)
        if command.startswith("export "):
            name, _, value = shlex.split(command, comments=True)[1].partition("=")
            path = f"{PROGRAM.parent}:{self._environment['PATH']}"
            self._environment[name] = path if name == "PATH" else value
            return ""
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=self._folder / "work",
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), (command, done)
        if " capture " in command:
            for written, real in zip(
                SECOND.findall(step.shown), SECOND.findall(done.stdout), strict=True
            ):
                self._seconds[written] = real
        return done.stdout


def test_the_tour_is_true(tmp_path: Path):
    tour, disk = Tour(tmp_path), GuestDisk(tmp_path)
    captures = 0
    try:
        for step in steps():
            if " capture " in step.command:
                captures += 1
                time.sleep(3 * (captures > 1))  # so that there is an unlisted second
                disk.work(captures)
                shutil.copy(disk.path, tmp_path / "vms" / "disk.vhdx")
            unknown = [
                second for second in SECOND.findall(step.command) if second in tour.here(second)
            ]
            if unknown:
                tour.unlisted(unknown[0])
            out = tour.run(step)
            assert shape(out) == shape(tour.here(step.shown)), (step, out)
    finally:
        if (tmp_path / "mnt" / "history").is_mount():
            subprocess.run(["umount", "-l", tmp_path / "mnt" / "history"], timeout=30, check=True)
    assert captures == 2
    assert (tmp_path / "work" / "report.txt").read_text() == "Report 1\n" * 300
    assert (tmp_path / "vms" / "back.vhdx").read_bytes() == disk.path.read_bytes()


def test_the_readme_names_commands_that_exist():
    from timefs.cli.main import COMMANDS  # noqa: PLC0415

    named = set(re.findall(r"\btimefs ([a-z]+)\b", README.read_text()))
    assert named <= {*COMMANDS}
    targets = set(re.findall(r"^make ([a-z]+)", README.read_text(), re.MULTILINE))
    makefile = (README.parent / "Makefile").read_text()
    assert {"demo", "test"} <= targets
    for target in targets:
        assert f"\n{target}:" in makefile
