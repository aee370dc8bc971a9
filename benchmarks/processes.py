"""Running programs for a benchmark: what they cost, and that nothing of them is left behind.

Defined here and only here: `Cost`, `run`, `Served` and what the page cache holds. Main thread only.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

Command = Sequence[str | Path]


class Cost(NamedTuple):
    """What a program took; `rss_bytes` is at least what the benchmark itself had at its start."""

    seconds: float
    cpu_seconds: float
    rss_bytes: int

    def plus(self, other: "Cost") -> "Cost":
        rss_bytes = max(self.rss_bytes, other.rss_bytes)
        return Cost(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds, rss_bytes)


def run(command: Command, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Cost:
    """Run a program to its end; a failure shows what it said."""
    start = time.perf_counter()
    with (
        subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            said = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        words = " ".join(str(word) for word in command)
        raise RuntimeError(f"{words}: exit {process.returncode}: {said.decode(errors='replace')}")
    seconds = time.perf_counter() - start
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def synced(command: Command, folder: Path, **options: Mapping[str, str] | Path | None) -> Cost:
    """Run a program and bring what it wrote to the disk, all within the clock."""
    cost = run(command, **options)  # type: ignore[arg-type]
    return cost._replace(seconds=cost.seconds + timed(lambda: sync(folder)))


def sync(folder: Path) -> None:
    """Bring a folder's file system to its disk."""
    run(["sync", "-f", folder])


class Served:
    """A program that serves a mount."""

    def __init__(self, command: Command, env: Mapping[str, str] | None, cwd: Path | None) -> None:
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )

    def wait_for(self, ready: Callable[[], bool], seconds: float = 60) -> None:
        end = time.perf_counter() + seconds
        while True:
            with suppress(OSError):
                if ready():
                    return
            if self._process.poll() is not None or time.perf_counter() > end:
                raise RuntimeError(f"{self._process.args}: never served anything")
            time.sleep(0.002)

    @property
    def pid(self) -> int:
        """The program's process."""
        return self._process.pid

    def cost(self) -> Cost:
        """What it took so far; seconds are not counted."""
        path = Path(f"/proc/{self._process.pid}")
        fields = (path / "stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        peak = (path / "status").read_text().partition("VmHWM:")[2].split()[0]
        return Cost(0.0, ticks / os.sysconf("SC_CLK_TCK"), int(peak) << 10)

    def stop(self, *, forced: bool) -> None:
        """Wait for its end, or end it."""
        if forced:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def serving(
    command: Command,
    mountpoint: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    *,
    by_signal: bool = False,
) -> Generator[Served]:
    """A mount that is gone afterwards, whatever happens; `by_signal`: it leaves when told to."""
    served = Served(command, env, cwd)
    try:
        served.wait_for(ready)
        yield served
    finally:
        unmounted = not by_signal and _unmounted(mountpoint)
        served.stop(forced=not unmounted)
        if not unmounted:
            _unmounted(mountpoint, quickly=True)


def _unmounted(mountpoint: Path, *, quickly: bool = False) -> bool:
    """Whether the mount could be taken away; one that is busy for a moment gets the moment."""
    for _ in range(1 if quickly else 50):
        done = subprocess.run(
            ["umount", str(mountpoint)], capture_output=True, check=False, timeout=60
        )
        if done.returncode == 0:
            return True
        time.sleep(0.05)
    done = subprocess.run(
        ["umount", "-l", str(mountpoint)], capture_output=True, check=False, timeout=60
    )
    return False


def evict(*folders: Path) -> None:
    """Push the files of some folders out of the page cache, and those of nobody else."""
    for path in _files(*folders):
        descriptor = os.open(path, os.O_RDONLY)
        os.fdatasync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def warm(*folders: Path) -> None:
    """Bring the files of some folders into the page cache."""
    for path in _files(*folders):
        with path.open("rb", buffering=0) as file:
            while file.read(8 << 20):
                pass


def stored_bytes(*folders: Path) -> int:
    """What the files of some folders take on the disk; holes take nothing."""
    return sum(path.stat().st_blocks * 512 for path in _files(*folders))


def _files(*folders: Path) -> list[Path]:
    return [
        path
        for folder in folders
        for path in ([folder] if folder.is_file() else folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    ]
