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

from contenders import Contender, Shown, expect_big, expect_marker
from guest import BIG, MARKER
from processes import evict, timed, warm

SEQUENTIAL_SECONDS = 12
RANDOM_SECONDS = 5
GENERATION = 5

Figures = dict[str, float]


def read_round(contender: Contender) -> Figures:
    """One round: figure by name."""
    figures: Figures = {}
    evict(*contender.caches())
    start = time.perf_counter()
    with contender.mounted(GENERATION) as shown:
        figures["first byte cold s"] = time.perf_counter() - start
        figures["seq cold MiB/s"] = sequential(contender, shown)[0]
    warm(*contender.caches())
    start = time.perf_counter()
    with contender.mounted(GENERATION) as shown:
        figures["first byte warm s"] = time.perf_counter() - start
        speed, cpu_seconds = sequential(contender, shown)
        figures["seq warm MiB/s"], figures["seq CPU s/GiB"] = speed, cpu_seconds
        for jobs in (1, 4):
            before = shown.served.cost().cpu_seconds
            iops, p50, p99, count = random_reads(contender, shown.disk, jobs)
            spent = shown.served.cost().cpu_seconds - before
            figures[f"random x{jobs} IOPS"] = iops
            figures[f"x{jobs} p50 us"], figures[f"x{jobs} p99 us"] = p50, p99
            figures[f"x{jobs} CPU us"] = spent / count * 1e6
        figures["RSS MiB"] = shown.served.cost().rss_bytes / (1 << 20)
    copy = contender.folder / "copy"
    for name, label in ((MARKER, "5 KiB file"), (BIG, "big file")):
        for state, prepare in (("cold", evict), ("warm", warm)):
            prepare(*contender.caches())
            seconds = timed(lambda n=name: contender.copy_guest_file(GENERATION, n, copy))
            figures[f"{label} {state} s"] = seconds
            if name == MARKER:
                expect_marker(contender.workload, GENERATION, copy)
            else:
                expect_big(contender.workload, copy)
    return figures


def sequential(contender: Contender, shown: Shown) -> tuple[float, float]:
    """MiB/s, and the server's CPU seconds a GiB, of an eighth of the disk from an eighth on."""
    length = contender.workload.size // 8
    before = shown.served.cost().cpu_seconds
    descriptor = os.open(shown.disk, os.O_RDONLY)
    buffer = bytearray(1 << 20)
    done = 0
    start = time.perf_counter()
    while done < length and time.perf_counter() - start < SEQUENTIAL_SECONDS:
        done += os.preadv(descriptor, [buffer], length + done)
    seconds = time.perf_counter() - start
    os.close(descriptor)
    spent = shown.served.cost().cpu_seconds - before
    return done / seconds / (1 << 20), spent / done * (1 << 30)


def random_reads(
    contender: Contender, disk: Path, jobs: int, size: int = 0, offset: int = 0
) -> tuple[float, float, float, int]:
    """IOPS, median and 99th percentile in us, and the number, of 4 KiB direct reads."""
    size = size or contender.workload.size
    named = str(disk).replace(":", "\\:")  # fio takes a colon for the end of a name
    command = [
        *("fio", "--name=a", f"--filename={named}", "--rw=randread", "--bs=4k", "--direct=1"),
        *("--ioengine=psync", "--thread", f"--numjobs={jobs}", f"--runtime={RANDOM_SECONDS}"),
        *("--time_based", "--group_reporting", "--output-format=json", "--readonly"),
        *(f"--offset={offset or size // 8}", f"--size={size // 2}", "--randrepeat=0"),
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    read = json.loads(done.stdout[done.stdout.index(b"{") :])["jobs"][0]["read"]
    percentile = read["clat_ns"]["percentile"]
    p50, p99 = percentile["50.000000"] / 1e3, percentile["99.000000"] / 1e3
    return read["iops"], p50, p99, read["total_ios"]
