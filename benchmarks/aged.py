"""A file whose every block was overwritten in random order over many instants, then read.

Prints how fast the oldest and the newest state are read through a mount, in order and at random,
what the server spends, and how many bytes it decodes for each byte read. Needs fio.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from processes import evict, run, stored_bytes, warm
from reading import fio_reads, read_through
from report import Results

from store.repository import Repository
from timefs.mount.mounting import mounted
from timefs.timetree import TimeTree

BLOCK = 4096
MEASURES = ["seq cold MiB/s", "seq warm MiB/s", "seq decoded/read", "seq CPU s/GiB"]
MEASURES += [
    f"random x{jobs} {what}" for jobs in (1, 4) for what in ("IOPS", "decoded/read", "CPU us")
]


def serve(repository: Path, cache: Path, mountpoint: Path) -> None:
    """Serve a mount; answer each line of standard input with the counters so far."""
    opened = Repository(repository, cache)
    with mounted(TimeTree(opened).root, mountpoint):
        print("ready", flush=True)
        for _ in sys.stdin:
            times = os.times()
            decoded = opened.reader.statistics.decoded_bytes
            print(json.dumps([decoded, times.user + times.system]), flush=True)


class Server:
    """The process that serves."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._ask, self._answers = process.stdin, process.stdout
        if self._answers.readline() != "ready\n":
            raise RuntimeError("the mount never answered")

    def counters(self) -> tuple[int, float]:
        """Bytes decoded and CPU seconds since the start."""
        self._ask.write("\n")
        self._ask.flush()
        decoded, seconds = json.loads(self._answers.readline())
        return decoded, seconds


@contextmanager
def served(folder: Path) -> Generator[Server]:
    """A fresh mount of the repository, gone afterwards."""
    command = [sys.executable, __file__, "--serve", str(folder)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
    try:
        yield Server(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        subprocess.run(["umount", "-l", folder / "mnt"], capture_output=True, check=False)


class Aged:
    """The file, its history, and what is measured of it."""

    def __init__(self, folder: Path, mib: int, instants: int) -> None:
        self.folder = folder
        self._mib = mib
        self._instants = instants
        self._random = np.random.Generator(np.random.SFC64(1))
        self._command = [sys.executable, "-m", "timefs.cli.main", "-r", folder / "repository"]
        self._command += ["--cache", folder / "cache"]

    def _blocks(self, count: int) -> bytes:
        """Blocks that are half random and no two alike."""
        blocks = np.full((count, BLOCK), ord("="), np.uint8)
        blocks[:, ::2] = self._random.integers(0, 256, (count, BLOCK // 2), np.uint8)
        return blocks.tobytes()

    def _time(self, instant: int) -> str:
        return f"2026-01-01T10-{instant // 60:02}-{instant % 60:02}Z"

    def write(self) -> None:
        """Capture the file whole, then after each part of a random order."""
        run([*self._command, "init"])
        source = self.folder / "file"
        with source.open("wb") as file:
            for _ in range(self._mib):
                file.write(self._blocks((1 << 20) // BLOCK))
        order = self._random.permutation(self._mib << 20 >> 12)
        for instant in range(self._instants + 1):
            if instant:
                part = order[instant - 1 :: self._instants].tolist()
                content = memoryview(self._blocks(len(part)))
                with source.open("r+b") as file:
                    for at, number in enumerate(part):
                        piece = content[at * BLOCK : (at + 1) * BLOCK]
                        os.pwrite(file.fileno(), piece, number * BLOCK)
            run([*self._command, "capture", "vm1", source, "--at", self._time(instant)])
        source.unlink()

    def read(self, instant: int, results: Results) -> None:
        """All measures of one instant, each through a fresh mount."""
        name = "newest" if instant else "oldest"
        path = self.folder / "mnt" / "vm1" / self._time(instant) / "file"
        caches = (self.folder / "repository", self.folder / "cache")
        for state, prepare in (("cold", evict), ("warm", warm)):
            prepare(*caches)
            with served(self.folder) as server:
                before = server.counters()
                speed, done = read_through(path, 0, self._mib << 20)
                decoded, seconds = np.subtract(server.counters(), before).tolist()
            results.add(name, f"seq {state} MiB/s", speed)
        results.add(name, "seq decoded/read", decoded / done)
        results.add(name, "seq CPU s/GiB", seconds / done * (1 << 30))
        for jobs in (1, 4):
            with served(self.folder) as server:
                before = server.counters()
                read = fio_reads(path, jobs, 0, self._mib << 20)
                decoded, seconds = np.subtract(server.counters(), before).tolist()
            results.add(name, f"random x{jobs} IOPS", read.iops)
            results.add(name, f"random x{jobs} decoded/read", decoded / read.count / BLOCK)
            results.add(name, f"random x{jobs} CPU us", seconds / read.count * 1e6)


def bench(folder: Path, mib: int, instants: int, rounds: int, results: Results) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "mnt").mkdir(parents=True)
    aged = Aged(folder, mib, instants)
    aged.write()
    for name in ("repository", "cache"):
        results.add(name, "MiB", stored_bytes(folder / name) / (1 << 20))
    for _ in range(rounds):
        for instant in (0, instants):
            aged.read(instant, results)
    print(f"{mib} MiB, every block overwritten once, in random order over {instants} instants")
    results.table("Repository and index", ["repository", "cache"], ["MiB"])
    results.table("Through the mount", ["oldest", "newest"], MEASURES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024, help="size of the file")
    parser.add_argument("--instants", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/timefs-bench"))
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        folder = arguments.serve
        serve(folder / "repository", folder / "cache", folder / "mnt")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = arguments.work.absolute() / "aged"
    try:
        bench(folder, arguments.mib, arguments.instants, arguments.rounds, Results(arguments.json))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
