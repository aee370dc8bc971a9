"""Captures that are killed: at random moments, and before every system call that writes."""

import json
import re
import shutil
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.system.machine import Machine, seeded

MIB = 1 << 20
WRITING = (
    *("write", "pwrite64", "fdatasync", "fsync", "ftruncate", "fallocate", "flock"),
    *("link", "linkat", "unlink", "rename", "renameat", "mkdir"),
)
WAKING = r'"\1\0\0\0\0\0\0\0", 8'
"""What a thread writes to wake another: nothing to do with files."""
pytestmark = pytest.mark.system


def test_killed_at_random_moments_nothing_acknowledged_is_lost(tmp_path: Path, soak: bool):
    random = seeded(1, soak=soak)
    moments: Counter[str] = Counter()
    for repository in range(10 if soak else 1):
        folder = tmp_path / str(repository)
        folder.mkdir()
        machine = Machine(folder, random, size=36 * MIB)  # two packs
        machine.init()
        machine.rewrite()
        started = time.monotonic()
        machine.capture()
        seconds = time.monotonic() - started
        for _ in range(10 if soak else 2):
            moments[kill_once(machine, random.uniform(0, seconds))] += 1
        shutil.rmtree(folder)
    print(dict(moments))


def kill_once(machine: Machine, seconds: float) -> str:
    """Kill a capture after that time, capture again; answers how far the killed one was."""
    machine.rewrite()
    before = machine.packs_bytes()
    process = machine.start()
    time.sleep(seconds)
    process.kill()
    acknowledged = machine.finish(process) is not None
    sealed = machine.packs_bytes() - before
    machine.verify(deep=False)
    done = machine.capture()
    assert sealed + done["stored_bytes"] < 1.02 * machine.size  # what was sealed serves again
    machine.verify()
    assert machine.left_overs() == []
    return "acknowledged" if acknowledged else "some sealed" if sealed else "nothing sealed"


def steps(trace: str) -> list[tuple[str, int]]:
    """Every writing system call of a traced capture, as (call, its count within its thread)."""
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, int], None] = {}
    for thread, call, rest in re.findall(r"^(\d+) +(\w+)\((.*)$", trace, re.MULTILINE):
        counts[thread, call] += 1
        if WAKING not in rest and "EEXIST" not in rest and "ENOENT" not in rest:
            found[call, counts[thread, call]] = None
    return list(found)


def test_killed_before_every_system_call_that_writes(tmp_path: Path, soak: bool):
    if shutil.which("strace") is None:
        pytest.skip("not installed: strace")
    random = seeded(2, soak=soak)
    machine = Machine(tmp_path, random, size=2 * MIB)
    machine.init()
    machine.rewrite()
    machine.capture()
    machine.change(20)
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-o", str(trace), "-e", f"trace={','.join(WRITING)}")
    machine.finish(machine.start(*strace))
    every = steps(trace.read_text())
    assert {"write", "fdatasync", "link", "unlink", "fsync", "rename"} <= {
        call for call, _ in every
    }
    first = {call: (call, count) for call, count in reversed(every)}  # of each kind of call
    chosen = every if soak else random.sample(list(first.values()), 4)
    killed = 0
    for call, count in chosen:
        machine.change(20)
        inject = f"inject={call}:signal=KILL:when={count}"
        process = machine.start(*strace, "-e", inject)
        machine.finish(process)
        killed += process.returncode == -signal.SIGKILL
        print(f"{call} {count}: exit code {process.returncode}")
        machine.verify()
        machine.capture()
        machine.verify()
        assert machine.left_overs() == [], f"{call} {count}"
    print(f"{len(every)} system calls, {killed} of {len(chosen)} killed")
    assert killed >= 0.9 * len(chosen)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_so_in_one_line_and_loses_nothing(
    tmp_path: Path, number: signal.Signals, soak: bool
):
    random = seeded(3, soak=soak)
    machine = Machine(tmp_path, random, size=36 * MIB)
    machine.init()
    machine.rewrite()
    machine.capture()
    for _ in range(20 if soak else 1):
        machine.rewrite()
        process = machine.start()
        while not list((machine.root / "packs").glob("*/.*")):  # a pack is being written
            assert process.poll() is None
            time.sleep(0.002)
        process.send_signal(number)
        said, errors = process.communicate(timeout=60)
        machine.acknowledge(said)
        assert process.returncode == 130
        line = errors.strip()
        said = json.loads(line)["error"]
        assert (said["code"], said["message"]) == (
            130,
            "interrupted; earlier instants are untouched",
        )
        assert machine.left_overs() == []
        machine.verify()
    machine.capture()
    machine.verify()
