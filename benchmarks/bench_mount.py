"""The mount's own cost: sequential and random reads of an image in memory, find over 10,000 files.

Prints one line a measure: the median of `--rounds` and all rounds. Needs dd, fio and findutils.
Nothing is decoded or verified here, so what is seen is the protocol and the kernel.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_IFDIR, S_IFREG

from store.errors import NotFoundError
from store.image import Extent, ExtentKind, Image
from timefs.mount.mounting import mounted, threads_default, unmount
from timefs.mount.points import mount_at
from timefs.tree import Attributes, Entry, Folder, Leaf, Node

BIG_BYTES = 2 << 30
RAM_BYTES = 64 << 20
FOLDERS = 100
FILES = 100
TICKS = os.sysconf("SC_CLK_TCK")


class RamImage(Image):
    """2 GiB that repeat 64 MiB."""

    def __init__(self) -> None:
        self._ram = memoryview(os.urandom(1 << 20) * (RAM_BYTES >> 20))

    @property
    def size(self) -> int:
        return BIG_BYTES

    def read_into(self, offset: int, buffer: memoryview) -> int:
        count = min(len(buffer), BIG_BYTES - offset)
        start = offset % RAM_BYTES
        first = min(count, RAM_BYTES - start)
        buffer[:first] = self._ram[start : start + first]
        if first < count:
            buffer[first:count] = self._ram[: count - first]
        return count

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, ExtentKind.OPAQUE, self, offset)


class RamFile(Leaf):
    def __init__(self, name: bytes, image: Image, size: int) -> None:
        self._name, self._image, self._size = name, image, size

    @property
    def identity(self) -> bytes:
        return self._name

    def attributes(self) -> Attributes:
        return Attributes(S_IFREG | 0o444, self._size, self._size, 1, 0, 0, 0, 0)

    def open(self) -> Image:
        return self._image


class RamFolder(Folder):
    def __init__(self, name: bytes, nodes: dict[bytes, Node]) -> None:
        self._name, self._nodes = name, nodes

    @property
    def identity(self) -> bytes:
        return self._name

    def attributes(self) -> Attributes:
        return Attributes(S_IFDIR | 0o555, 0, 0, 2, 0, 0, 0, 0)

    def lookup(self, name: bytes) -> Node:
        if name not in self._nodes:
            raise NotFoundError(f"{name!a}: no such name")
        return self._nodes[name]

    def entries(self) -> Iterator[Entry]:
        for name, node in self._nodes.items():
            yield Entry(name, node)


def content() -> Folder:
    image = RamImage()
    top: dict[bytes, Node] = {b"big": RamFile(b"big", image, BIG_BYTES)}
    for folder in range(FOLDERS):
        names = [b"%03d-%03d" % (folder, file) for file in range(FILES)]
        files: dict[bytes, Node] = {name: RamFile(name, image, 5000) for name in names}
        top[b"folder-%03d" % folder] = RamFolder(b"folder-%03d" % folder, files)
    return RamFolder(b"root", top)


def serve(mountpoint: Path, threads: int) -> None:
    with mounted(content(), mountpoint, threads=threads) as server:
        print("ready", flush=True)
        server.wait()


class Mount:
    """A server in a process of its own."""

    def __init__(self, mountpoint: Path, threads: int, read_ahead_kib: int) -> None:
        self.point = mountpoint
        command = [sys.executable, __file__, "--serve", str(mountpoint), f"--threads={threads}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        mount = mount_at(mountpoint)
        if read_ahead_kib and mount is not None:
            setting = Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb")
            setting.write_text(f"{read_ahead_kib}\n")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def close(self) -> None:
        unmount(self.point)
        try:
            self._process.wait(timeout=30)
        finally:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGKILL)


def run(command: list[str]) -> bytes:
    return subprocess.run(command, capture_output=True, check=True, timeout=120).stdout


def sequential(mount: Mount, megabytes: int, direct: bool) -> dict[str, float]:
    big = mount.point / "big"
    file = os.open(big, os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(file)
    cpu, start = mount.cpu_seconds(), time.perf_counter()
    flags = ["iflag=direct"] if direct else []
    run(["dd", f"if={big}", "of=/dev/null", "bs=1M", f"count={megabytes}", *flags])
    seconds = time.perf_counter() - start
    moved = megabytes * 1.048576
    return {"MB/s": moved / seconds, "cpu s/GB": (mount.cpu_seconds() - cpu) / moved * 1000}


def random_reads(mount: Mount, jobs: int) -> dict[str, float]:
    command = [
        *("fio", "--name=a", f"--filename={mount.point / 'big'}", "--rw=randread", "--bs=4k"),
        *("--direct=1", "--ioengine=psync", "--thread", f"--numjobs={jobs}", "--runtime=2"),
        *("--time_based", "--group_reporting", "--output-format=json", "--readonly"),
    ]
    cpu = mount.cpu_seconds()
    output = run(command)
    read = json.loads(output[output.index(b"{") :])["jobs"][0]["read"]
    return {"IOPS": read["iops"], "cpu us": (mount.cpu_seconds() - cpu) / read["total_ios"] * 1e6}


def find(mount: Mount) -> dict[str, float]:
    cpu, start = mount.cpu_seconds(), time.perf_counter()
    assert run(["find", str(mount.point), "-ls"]).count(b"\n") > FOLDERS * FILES
    wall = time.perf_counter() - start
    return {"ms": wall * 1000, "cpu ms": (mount.cpu_seconds() - cpu) * 1000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=512, help="of each sequential read")
    parser.add_argument("--threads", type=int, default=threads_default())
    parser.add_argument("--read-ahead-kib", type=int, default=0, help="0: what the mount sets")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.threads)
        return
    measures: dict[str, Callable[[Mount], dict[str, float]]] = {
        "find, cold": find,  # first: later the kernel has the names
        "sequential, buffered": lambda mount: sequential(mount, arguments.megabytes, direct=False),
        "sequential, direct": lambda mount: sequential(mount, arguments.megabytes, direct=True),
        "random 4 KiB, 1 thread": lambda mount: random_reads(mount, 1),
        "random 4 KiB, 4 threads": lambda mount: random_reads(mount, 4),
    }
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in measures}
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory() as folder:
            mount = Mount(Path(folder).resolve(), arguments.threads, arguments.read_ahead_kib)
            try:
                for name, measure in measures.items():
                    rounds[name].append(measure(mount))
            finally:
                mount.close()
    for name, figures in rounds.items():
        for unit in figures[0]:
            values = [figure[unit] for figure in figures]
            shown = " ".join(f"{value:.2f}" for value in values)
            print(f"{name:24} {statistics.median(values):12.2f} {unit:8} of {shown}")


if __name__ == "__main__":
    main()
