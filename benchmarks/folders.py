"""Folders of very many names, beside the kernel's own mount of the same volume.

Makes XFS and ext4 volumes with one folder of 100,000 and of 200,000 names each, captures them, and
measures in a mount of its own each time: `ls -l`, `ls -f`, and the opening of one name that nothing
led to before. The kernel mounts the same volume from a loop device. What lies beneath is in the
page cache for all. `--other DIR` measures another version of timefs too, whose sources are there,
with a repository of its own. Prints medians, all rounds, the serving processor's seconds, and
ratios to the kernel with their target. Root; needs mkfs.xfs and mke2fs.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from processes import Served, run, serving, timed, warm

COUNTS = (100_000, 200_000)
SYSTEMS = {"xfs": ["mkfs.xfs", "-q"], "ext4": ["mke2fs", "-q", "-F", "-t", "ext4", "-N", "300000"]}
VOLUME_BYTES = 1 << 30
RATIO_MAX = 3.0
FOLDER = "folder"

Round = dict[str, tuple[float, float]]


class Workload(NamedTuple):
    """One volume."""

    system: str
    names: int

    @property
    def name(self) -> str:
        return f"{self.system}-{self.names}"


class Way:
    """A version of timefs with a repository of its own."""

    def __init__(self, folder: Path, sources: Path) -> None:
        self.point = folder / "point"
        self.repository = folder / "repository"
        self.point.mkdir(parents=True)
        self._environment = {"PYTHONPATH": str(sources), "PYTHONSAFEPATH": "1"}
        self._command = [
            *(sys.executable, "-m", "timefs.cli.main"),
            *("-r", self.repository, "--cache", folder / "cache"),
        ]
        run([*self._command, "init"], self._environment)

    def capture(self, workload: Workload, volume: Path) -> None:
        run([*self._command, "capture", workload.name, volume], self._environment)

    @contextmanager
    def mounted(self, workload: Workload) -> Generator[tuple[Path, Served | None]]:
        """The folder, and who serves it; the volume is open, its folder was not looked at."""
        command = [*self._command, "mount", "--foreground", self.point]
        warm(self.repository)
        with serving(command, self.point, self.point.is_mount, self._environment) as served:
            top = self.point / workload.name / "latest" / workload.name
            list(top.iterdir())
            yield top / FOLDER, served


class Kernel:
    """The kernel's own mount."""

    def __init__(self, folder: Path, volumes: Path) -> None:
        self._point = folder / "kernel"
        self._volumes = volumes
        self._point.mkdir(parents=True)

    @contextmanager
    def mounted(self, workload: Workload) -> Generator[tuple[Path, Served | None]]:
        volume = self._volumes / f"{workload.name}.img"
        warm(volume)
        run(["mount", "-o", "ro,loop", volume, self._point])
        try:
            yield self._point / FOLDER, None
        finally:
            run(["umount", self._point])


def mail(number: int) -> str:
    """Names as a mail folder has them."""
    return f"17{number:08d}.M{number * 7919 % 1_000_000}P{number}.mail.example.org,S={number}:2,S"


def fill(workload: Workload, volume: Path, point: Path) -> None:
    with volume.open("wb") as file:
        file.truncate(VOLUME_BYTES)
    run([*SYSTEMS[workload.system], volume])
    run(["mount", "-o", "loop", volume, point])
    try:
        (point / FOLDER).mkdir()
        for number in range(workload.names):
            (point / FOLDER / mail(number)).touch()
    finally:
        run(["umount", point])


def list_long(folder: Path, workload: Workload) -> None:
    _list(folder, "-l", workload.names)


def list_names(folder: Path, workload: Workload) -> None:
    _list(folder, "-f", workload.names)


def open_one(folder: Path, workload: Workload) -> None:
    (folder / mail(workload.names // 2)).read_bytes()


def _list(folder: Path, option: str, count: int) -> None:
    """What a program sees that lists the folder; all of it, or the figure means nothing."""
    done = subprocess.run(["ls", option, folder], capture_output=True, check=True, timeout=600)
    found = done.stdout.count(b"\n")
    assert count <= found <= count + 2, f"expected {count} lines, got {found}"


OPERATIONS: dict[str, Callable[[Path, Workload], None]] = {
    "ls -l": list_long,
    "ls -f": list_names,
    "first open": open_one,
}


def measure(way: Way | Kernel, workload: Workload) -> Round:
    """Seconds, and of them the serving processor's, for each operation."""
    found: Round = {}
    for operation, do in OPERATIONS.items():
        with way.mounted(workload) as (folder, served):
            before = served.cost().cpu_seconds if served else 0.0
            seconds = timed(partial(do, folder, workload))
            after = served.cost().cpu_seconds if served else 0.0
            found[operation] = seconds, after - before
    return found


def show(workload: Workload, rounds: dict[str, list[Round]]) -> None:
    print(f"\n{workload.system}, {workload.names:,} names", flush=True)
    for operation in OPERATIONS:
        medians: dict[str, float] = {}
        for way, found in rounds.items():
            values = [each[operation] for each in found]
            medians[way] = statistics.median(seconds for seconds, _ in values)
            served = statistics.median(cpu for _, cpu in values)
            spread = " ".join(f"{seconds:.3g}" for seconds, _ in values)
            print(f"  {operation:12} {way:8} {medians[way]:9.4g} s  ({served:.3g} s) [{spread}]")
        for way in medians.keys() - {"kernel"}:
            ratio = medians[way] / medians["kernel"]
            hit = "hit" if ratio <= RATIO_MAX else "MISSED"
            print(
                f"  {operation:12} {way:8} {ratio:9.4g} x the kernel's, target {RATIO_MAX:g}: {hit}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--other", type=Path, help="sources of another version, to be measured too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="timefs-folders-") as temporary:
        folder = Path(temporary)
        ways: dict[str, Way | Kernel] = {"kernel": Kernel(folder, folder)}
        ways["timefs"] = Way(folder / "own", Path(__file__).parents[1])
        if arguments.other:
            ways["other"] = Way(folder / "other", arguments.other.absolute())
        for workload in (Workload(system, count) for system in SYSTEMS for count in COUNTS):
            volume = folder / f"{workload.name}.img"
            fill(workload, volume, folder / "kernel")
            for way in ways.values():
                if isinstance(way, Way):
                    way.capture(workload, volume)
            rounds: dict[str, list[Round]] = {}
            for _ in range(arguments.rounds):
                for name, way in ways.items():
                    rounds.setdefault(name, []).append(measure(way, workload))
            show(workload, rounds)


if __name__ == "__main__":
    main()
