"""How fast a mounted generation is read.

Defined here and only here: `read_round`, one round of all reads of one contender, cold and warm.
Cold: the repository's files are not in the page cache when the mount begins; warm: they are, and
the mount is fresh. Main thread only.
"""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from contenders import Contender, Shown, expect_big, expect_marker
from guest import BIG, MARKER
from processes import evict, timed, warm

SEQUENTIAL_SECONDS = 12
RANDOM_SECONDS = 3
GENERATION = 5
FILES = {MARKER: "5 KiB file", BIG: "big file"}

Figures = dict[str, float]


def read_round(contender: Contender) -> Figures:
    """One round: figure by name. What is cold comes first; then the repository is read once."""
    figures: Figures = {}
    evict(*contender.caches())
    start = time.perf_counter()
    with contender.mounted(GENERATION) as shown:
        figures["first byte cold s"] = time.perf_counter() - start
        figures["seq cold MiB/s"] = sequential(contender, shown)[0]
    for name, label in FILES.items():
        evict(*contender.caches())
        figures[f"{label} cold s"] = timed(lambda n=name: copied(contender, n))
    warm(*contender.caches())
    for name, label in FILES.items():
        figures[f"{label} warm s"] = timed(lambda n=name: copied(contender, n))
    start = time.perf_counter()
    with contender.mounted(GENERATION) as shown:
        figures["first byte warm s"] = time.perf_counter() - start
        speed, cpu_seconds = sequential(contender, shown)
        figures["seq warm MiB/s"], figures["seq CPU s/GiB"] = speed, cpu_seconds
        for jobs in (1, 4):
            figures |= random_round(contender, shown, jobs)
        figures["RSS MiB"] = shown.served.cost().rss_bytes / (1 << 20)
    return figures


def copied(contender: Contender, name: str) -> None:
    """Copy a guest's file out of a disk that was not mounted, and look at every byte of it."""
    copy = contender.folder / "copy"
    contender.copy_guest_file(GENERATION, name, copy)
    if name == MARKER:
        expect_marker(contender.workload, GENERATION, copy)
    else:
        expect_big(contender.workload, copy)


def random_round(contender: Contender, shown: Shown, jobs: int) -> Figures:
    """4 KiB direct reads in the middle half of the disk."""
    size = contender.workload.size
    before = shown.served.cost().cpu_seconds
    read = fio_reads(shown.disk, jobs, size // 8, size // 2)
    spent = shown.served.cost().cpu_seconds - before
    return {
        f"random x{jobs} IOPS": read.iops,
        f"x{jobs} p50 us": read.p50_us,
        f"x{jobs} p99 us": read.p99_us,
        f"x{jobs} CPU us": spent / read.count * 1e6,
    }


def sequential(contender: Contender, shown: Shown) -> tuple[float, float]:
    """MiB/s, and the server's CPU seconds a GiB, of an eighth of the disk from an eighth on."""
    part = contender.workload.size // 8
    before = shown.served.cost().cpu_seconds
    speed, done = read_through(shown.disk, part, part)
    spent = shown.served.cost().cpu_seconds - before
    return speed, spent / done * (1 << 30)


def read_through(path: Path, offset: int, length: int) -> tuple[float, int]:
    """MiB/s and bytes of reading in order by 1 MiB, cut when it has taken too long."""
    descriptor = os.open(path, os.O_RDONLY)
    buffer = bytearray(1 << 20)
    done = 0
    start = time.perf_counter()
    while done < length and time.perf_counter() - start < SEQUENTIAL_SECONDS:
        done += os.preadv(descriptor, [buffer], offset + done)
    seconds = time.perf_counter() - start
    os.close(descriptor)
    return done / seconds / (1 << 20), done


class Reads(NamedTuple):
    """What fio says of reads: per second, latencies in us, and how many there were."""

    iops: float
    p50_us: float
    p99_us: float
    count: int


def fio_reads(path: Path, jobs: int, offset: int, length: int) -> Reads:
    """4 KiB direct reads at random in a stretch of a file."""
    named = str(path).replace(":", "\\:")  # fio takes a colon for the end of a name
    command = [
        *("fio", "--name=a", f"--filename={named}", "--rw=randread", "--bs=4k", "--direct=1"),
        *("--ioengine=psync", "--thread", f"--numjobs={jobs}", f"--runtime={RANDOM_SECONDS}"),
        *("--time_based", "--group_reporting", "--output-format=json", "--readonly"),
        *(f"--offset={offset}", f"--size={length}", "--randrepeat=0"),
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    read = json.loads(done.stdout[done.stdout.index(b"{") :])["jobs"][0]["read"]
    percentile = read["clat_ns"]["percentile"]
    p50_us, p99_us = percentile["50.000000"] / 1e3, percentile["99.000000"] / 1e3
    return Reads(read["iops"], p50_us, p99_us, read["total_ios"])
