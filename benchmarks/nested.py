"""Reading inside the disk: guest files through the mount, beside the disk itself and ntfs-3g.

Builds two NTFS disks (a big file beside a folder of 10,000 names; many small files), captures both,
and measures through one live mount: sequential and random reads of the guest file, of the same
bytes of the outer disk, and of the same file through ntfs-3g on the mounted disk; the first listing
of the folder; the opening of the volume of many files. Prints medians, all rounds and ratios with
their targets. Root; needs mkntfs, ntfs-3g, fio.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from processes import Served, evict, run, serving, timed, warm

from store.image import DescriptorImage
from timefs.guest.ntfs import open_volume
from timefs.tree import Leaf, walk

MIB = 1 << 20
LISTED = 10_000
FOLDER_FILES = 1000
RANDOM_READS = 16_384
"""No block of the big file twice, or what lies beneath a mount would answer from its page cache."""


class Bench:
    """The disks, their repository, and what is measured on them."""

    def __init__(self, folder: Path, mebibytes: int, files: int, rounds: int) -> None:
        self.folder = folder
        self.repository = folder / "repo"
        self.mountpoint = folder / "mnt"
        self.ntfs_point = folder / "ntfs"
        self.rounds = rounds
        self._bytes = mebibytes * MIB
        self._files = files
        self.timefs = [
            *(Path(sys.executable).with_name("timefs"), "-r", self.repository),
            *("--cache", folder / "cache"),
        ]

    def prepare(self) -> None:
        """Make, fill and capture both disks."""
        self.mountpoint.mkdir()
        self.ntfs_point.mkdir()
        disk, many = self.folder / "disk.img", self.folder / "many.img"
        random = np.random.Generator(np.random.SFC64(1))
        with self._filled(disk, self._bytes + 128 * MIB) as volume:
            with (volume / "big.bin").open("wb") as file:
                for _ in range(self._bytes // MIB):
                    blocks = np.full((256, 4096), ord("="), np.uint8)
                    blocks[:, 2048:] = random.integers(0, 256, (256, 2048), np.uint8)
                    file.write(blocks.tobytes())
            (volume / "listed").mkdir()
            for number in range(LISTED):
                (volume / "listed" / f"name {number:05}.dat").write_bytes(b"%d" % number)
        with self._filled(many, 64 * MIB + self._files * 4096) as volume:
            for number in range(self._files):
                below = volume / f"folder {number // FOLDER_FILES:04}"
                below.mkdir(exist_ok=True)
                (below / f"document {number:06}.txt").write_bytes(b"%d" % number)
        run([*self.timefs, "init"])
        run([*self.timefs, "capture", "vm1", disk, many])

    @contextmanager
    def _filled(self, image: Path, size: int) -> Generator[Path]:
        with image.open("wb") as file:
            file.truncate(size)
        run(["mkntfs", "-Q", "-F", "-q", "-p", "0", "-H", "255", "-S", "63", image])
        with self.ntfs_3g(image, "big_writes"):
            yield self.ntfs_point

    @contextmanager
    def ntfs_3g(self, image: Path, options: str) -> Generator[Served]:
        command = ["ntfs-3g", "-o", f"{options},no_detach", image, self.ntfs_point]
        with serving(command, self.ntfs_point, self.ntfs_point.is_mount) as served:
            yield served

    @contextmanager
    def mounted(self) -> Generator[Served]:
        command = [*self.timefs, "mount", "--foreground", self.mountpoint]
        with serving(command, self.mountpoint, self.mountpoint.is_mount) as served:
            yield served

    @property
    def instant(self) -> Path:
        return self.mountpoint / "vm1" / "latest"

    def runs(self) -> list[tuple[int, int]]:
        """Where the big file lies on its disk: (offset, length)."""
        descriptor = os.open(self.folder / "disk.img", os.O_RDONLY)
        try:
            root = open_volume(DescriptorImage(descriptor), b"disk").root
            node = walk(root, [b"big.bin"])
            assert isinstance(node, Leaf)
            extents = list(node.open().extents(0, self._bytes))
            return [(extent.place, extent.length) for extent in extents]
        finally:
            os.close(descriptor)


def sequential(path: Path, runs: list[tuple[int, int]]) -> float:
    """MiB/s of reading stretches of a file by 1 MiB."""
    descriptor = os.open(path, os.O_RDONLY)
    buffer = bytearray(MIB)
    start = time.perf_counter()
    for offset, length in runs:
        for at in range(offset, offset + length, MIB):
            view = memoryview(buffer)[: min(MIB, offset + length - at)]
            assert os.preadv(descriptor, [view], at) == len(view)
    seconds = time.perf_counter() - start
    os.close(descriptor)
    return sum(length for _, length in runs) / MIB / seconds


def random_iops(path: Path) -> float:
    """Random reads of 4 KiB a second, past the page cache of that mount."""
    done = subprocess.run(
        [
            *("fio", "--name=a", f"--filename={path}", "--rw=randread", "--bs=4k", "--direct=1"),
            *("--ioengine=psync", f"--number_ios={RANDOM_READS}", "--readonly"),
            "--output-format=json",
        ],
        capture_output=True,
        check=True,
        timeout=120,
    ).stdout
    return float(json.loads(done[done.index(b"{") :])["jobs"][0]["read"]["iops"])


def listing_seconds(folder: Path) -> float:
    """Listing a folder with each name's attributes."""

    def listed() -> None:
        with os.scandir(folder) as entries:
            assert sum(entry.stat().st_size > 0 for entry in entries) == LISTED

    return timed(listed)


def anonymous_bytes(served: Served) -> int:
    status = Path(f"/proc/{served.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) << 10


def reads(bench: Bench, temperature: str) -> dict[str, list[float]]:
    """Reads of the same bytes on three ways, alternating."""
    runs = bench.runs()
    whole = [(0, sum(length for _, length in runs))]
    rounds: dict[str, list[float]] = {}
    with bench.mounted():
        outer, guest = bench.instant / "disk.img", bench.instant / "disk" / "big.bin"
        with bench.ntfs_3g(outer, "ro"):
            peer = bench.ntfs_point / "big.bin"
            ways = {"outer disk": (outer, runs), "guest file": (guest, whole)}
            ways["ntfs-3g"] = (peer, whole)
            for _ in range(bench.rounds):
                for name, (path, stretches) in ways.items():
                    (evict if temperature == "cold" else warm)(bench.repository)
                    for cached in (outer, guest, peer):
                        evict(cached)
                    speed = sequential(path, stretches)
                    rounds.setdefault(f"sequential MiB/s, {name}", []).append(speed)
                for name in ("guest file", "ntfs-3g"):
                    (evict if temperature == "cold" else warm)(bench.repository)
                    evict(outer)
                    speed = random_iops(ways[name][0])
                    rounds.setdefault(f"random 4 KiB IOPS, {name}", []).append(speed)
    return rounds


def openings(bench: Bench) -> dict[str, list[float]]:
    """First looks into volumes, each in a mount of its own."""
    rounds: dict[str, list[float]] = {}
    for _ in range(bench.rounds):
        with bench.mounted() as served:
            (bench.instant / "many.img").stat()
            before = anonymous_bytes(served)
            seconds = timed((bench.instant / "many" / "folder 0000").stat)
            grown = anonymous_bytes(served) - before
            rounds.setdefault("open many files, ms", []).append(seconds * 1000)
            rounds.setdefault("open many files, MiB", []).append(grown / MIB)
            seconds = listing_seconds(bench.instant / "disk" / "listed")
            rounds.setdefault("list 10,000, ms", []).append(seconds * 1000)
        found = timed(lambda: run([*bench.timefs, "find", "vm1/latest/many", "-name", "*7.txt"]))
        rounds.setdefault("timefs find, s", []).append(found)
    return rounds


def ratio(rounds: dict[str, list[float]], first: str, second: str) -> float:
    return statistics.median(rounds[first]) / statistics.median(rounds[second])


Target = tuple[str, Callable[[dict[str, list[float]]], float], str, float]
READ_TARGETS: list[Target] = [
    (
        "sequential: guest file / outer disk",
        lambda r: ratio(r, "sequential MiB/s, guest file", "sequential MiB/s, outer disk"),
        ">=",
        0.8,
    ),
    (
        "sequential: guest file / ntfs-3g",
        lambda r: ratio(r, "sequential MiB/s, guest file", "sequential MiB/s, ntfs-3g"),
        ">=",
        2.0,
    ),
    (
        "random 4 KiB: guest file / ntfs-3g",
        lambda r: ratio(r, "random 4 KiB IOPS, guest file", "random 4 KiB IOPS, ntfs-3g"),
        ">=",
        1.0,
    ),
]
OPEN_TARGETS: list[Target] = [
    (name, lambda r, name=name: statistics.median(r[name]), "<=", limit)
    for name, limit in (
        ("list 10,000, ms", 200.0),
        ("open many files, ms", 50.0),
        ("open many files, MiB", 30.0),
    )
]


def show(title: str, rounds: dict[str, list[float]], targets: list[Target]) -> None:
    print(f"\n{title}")
    for name, values in rounds.items():
        spread = " ".join(f"{value:.4g}" for value in values)
        print(f"  {name:38} {statistics.median(values):10.4g}   [{spread}]")
    for name, figure, sign, limit in targets:
        value = figure(rounds)
        hit = value >= limit if sign == ">=" else value <= limit
        print(f"  {name:38} {value:10.4g}   target {sign} {limit:g}: {'hit' if hit else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512, help="of the big guest file")
    parser.add_argument("--files", type=int, default=100_000, help="of the volume of many files")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="timefs-nested-") as folder:
        bench = Bench(Path(folder), arguments.mib, arguments.files, arguments.rounds)
        print("building the disks", flush=True)
        bench.prepare()
        for temperature in ("cold", "warm"):
            rounds = reads(bench, temperature)
            show(f"Reads, repository {temperature}", rounds, READ_TARGETS)
        show("Openings, warm", openings(bench), OPEN_TARGETS)


if __name__ == "__main__":
    main()
