"""Us beside restic, borg and a qcow2 chain, on one disk and ten generations of changes.

Prints what each takes to store and to read, and whether the targets are reached. Root (loop
devices and mounts), setup/apt-bench and a quiet machine. The workload is built once and kept in
the work folder, as is the environment that borg is installed into.
"""

import argparse
import os
import shutil
import signal
import sys
import venv
from pathlib import Path
from types import FrameType

from contenders import Borg, BorgFixed, Contender, Qcow2, Restic, Timefs
from floors import Floors, floors
from processes import evict, run
from reading import GENERATION, read_round
from report import Results, Target
from workload import GENERATIONS, Workload

MIB = 1 << 20
STORE = ["gen 0 s", "gen 0 MiB/s", "gen 0 CPU s", "gen 0 RSS MiB", "increment s"]
STORE += ["increment CPU s", "gen 0 MiB", "gen 10 MiB", "MiB/gen"]
READ = ["first byte cold s", "first byte warm s", "seq cold MiB/s", "seq warm MiB/s"]
READ += ["seq CPU s/GiB", "RSS MiB"]
RANDOM = [
    f"{what}"
    for jobs in (1, 4)
    for what in (f"random x{jobs} IOPS", f"x{jobs} p50 us", f"x{jobs} p99 us", f"x{jobs} CPU us")
]
FILES = [f"{what} {state} s" for what in ("5 KiB file", "big file") for state in ("cold", "warm")]


def borg_program(work: Path) -> Path:
    """borg in an environment of its own: what it depends on is not ours."""
    program = work / "borg" / "bin" / "borg"
    if not program.exists():
        print("installing borg", flush=True)
        venv.create(work / "borg", with_pip=True, clear=True)
        pip = [work / "borg" / "bin" / "pip", "install", "-q", "--disable-pip-version-check"]
        run([*pip, "borgbackup[pyfuse3]"])
    return program


def fresh_disk(workload: Workload, disk: Path) -> None:
    run(["cp", "--sparse=always", workload.base, disk])
    run(["sync", "-f", disk])


def store(contenders: list[Contender], disk: Path, results: Results) -> None:
    """Every contender takes in every generation; generation 0 with the disk cold."""
    for generation in range(GENERATIONS + 1):
        if generation:
            contenders[0].workload.apply(generation, disk)
        for contender in contenders:
            if generation == 0:
                first(contender, disk, results)
            else:
                cost = contender.ingest(generation)
                results.add(contender.name, "increment s", cost.seconds)
                results.add(contender.name, "increment CPU s", cost.cpu_seconds)
        print(f"generation {generation} stored", flush=True)
    for contender in contenders:
        last = contender.stored_bytes() / MIB
        start = results.median(contender.name, "gen 0 MiB")
        results.add(contender.name, "gen 10 MiB", last)
        results.add(contender.name, "MiB/gen", (last - start) / GENERATIONS)


def first(contender: Contender, disk: Path, results: Results) -> None:
    """A first capture into a new repository."""
    contender.start()
    evict(disk)
    cost = contender.ingest(0)
    size = disk.stat().st_blocks * 512 / MIB
    results.add(contender.name, "gen 0 s", cost.seconds)
    results.add(contender.name, "gen 0 MiB/s", size / cost.seconds)
    results.add(contender.name, "gen 0 CPU s", cost.cpu_seconds)
    results.add(contender.name, "gen 0 RSS MiB", cost.rss_bytes / MIB)
    results.add(contender.name, "gen 0 MiB", contender.stored_bytes() / MIB)


def read(contenders: list[Contender], rounds: int, results: Results) -> None:
    """Rounds of all reads, every other one the other way round."""
    for number in range(rounds):
        for contender in contenders if number % 2 == 0 else reversed(contenders):
            for measure, value in read_round(contender).items():
                results.add(contender.name, measure, value)
        print(f"reads, round {number + 1} of {rounds}", flush=True)


def targets(results: Results, names: list[str], floor: Floors) -> list[Target]:
    """What is to be reached."""
    us, *others = names
    archives = [name for name in others if name.startswith(("restic", "borg"))]
    size = results.median(us, "gen 10 MiB")
    smallest = min(results.median(name, "gen 10 MiB") for name in others)
    seconds = results.pairs(us, "borg default", "gen 0 s")
    found = [
        Target("repository after 10 generations / smallest of them", size / smallest, True, 0.95),
        Target("… / floor (blocks alone + streams)", size * MIB / floor.total, True, 1.04),
        Target(
            "… / floor (4 KiB blocks in 64 KiB frames)", size * MIB / floor.total_joined, True, 1.04
        ),
        Target("first capture, seconds / borg default's", seconds, True, 1.0),
    ]
    for state in ("cold", "warm"):
        measure = f"seq {state} MiB/s"
        best = results.best(archives, measure)
        what = f"sequential, {state} / best of restic and borg"
        found.append(Target(what, results.median(us, measure) / best, False, 1.5))
    for jobs in (1, 4):
        measure = f"random x{jobs} IOPS"
        for other, limit in (("qcow2 chain", 0.8), ("restic", 10.0)):
            ratio = results.pairs(us, other, measure)
            found.append(Target(f"random 4 KiB x{jobs} / {other}", ratio, False, limit))
    live = results.median(us, "live 5 KiB file ms")
    found.append(Target("5 KiB guest file of an unopened instant, live mount, ms", live, True, 50))
    return found


def bench(work: Path, gib: float, rounds: int, results: Results) -> int:
    """The whole run; answers how many targets were missed."""
    workload = Workload(work / "workload", gib, seed=1)
    print(f"workload of {gib} GiB in {work}", flush=True)
    workload.prepare()
    borg = borg_program(work)
    scene = work / "run"
    shutil.rmtree(scene, ignore_errors=True)
    scene.mkdir(parents=True)
    disk = scene / "disk.raw"
    fresh_disk(workload, disk)
    us = Timefs(scene / "timefs", workload, disk)
    contenders: list[Contender] = [
        us,
        Restic(scene / "restic", workload, disk),
        Borg(scene / "borg", workload, disk, borg),
        BorgFixed(scene / "borg-fixed", workload, disk, borg),
        Qcow2(scene / "qcow2", workload, disk),
    ]
    for _ in range(rounds - 1):
        for contender in (
            Timefs(scene / "again", workload, disk),
            Borg(scene / "again", workload, disk, borg),
        ):
            first(contender, disk, results)
    store(contenders, disk, results)
    floor = floors(workload)
    read(contenders, rounds, results)
    for seconds in us.live_copy_seconds([GENERATION, 9, 2, 7, 1, 10, 4, 3, 8, 6]):
        results.add(us.name, "live 5 KiB file ms", seconds * 1000)
    names = [contender.name for contender in contenders]
    results.table("Storing (restic encrypts; qcow2 is told what changed)", names, STORE)
    show_floors(floor, results)
    results.table("Reading the disk of generation 5", names, READ)
    results.table("Random 4 KiB reads, direct, warm", names, RANDOM)
    results.table("A guest's file, from no mount to no mount", names, FILES)
    results.table("In a live mount", [us.name], ["live 5 KiB file ms"])
    return results.targets(targets(results, names, floor))


def show_floors(floor: Floors, results: Results) -> None:
    print(
        f"\nFloors: {floor.nonzero / MIB:.0f} MiB of blocks not zero, "
        f"{floor.unique / MIB:.0f} MiB of them unique"
    )
    for grain, size in floor.first.items():
        results.record({"floor": f"gen 0 by {grain}", "value": size / MIB})
        print(f"  gen 0, blocks of {grain:5}: {size / MIB:.1f} MiB")
    print(f"  gen 0, 4 KiB blocks in 64 KiB frames: {floor.first_joined / MIB:.1f} MiB")
    print(
        f"  a generation, one stream: {sum(floor.generations) / len(floor.generations) / MIB:.2f}"
        f" MiB; all: {floor.total / MIB:.1f} and {floor.total_joined / MIB:.1f} MiB"
    )
    results.record({"floor": "all", "value": floor.total / MIB})
    results.record({"floor": "all, joined", "value": floor.total_joined / MIB})


def interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=4, help="size of the disk")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/timefs-bench"))
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("peers.py: needs root: loop devices and mounts")
    signal.signal(signal.SIGTERM, interrupted)
    work = arguments.work.absolute()
    try:
        missed = bench(work, arguments.gib, arguments.rounds, Results(arguments.json))
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        shutil.rmtree(work / "run", ignore_errors=True)
    print(f"\n{missed} targets missed" if missed else "\nall targets reached")


if __name__ == "__main__":
    main()
