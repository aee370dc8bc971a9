"""Many processes on one repository: nobody waits but for the same machine, nothing is wrong."""

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import TimeoutExpired

import pytest

from store.errors import BusyError
from store.history import FileKind
from store.log.claim import claim
from store.log.machine_logs import MachineState
from store.repository import Repository
from tests.system.machine import SECONDS, Machine, seeded

MIB = 1 << 20
pytestmark = pytest.mark.system


@pytest.fixture
def machine(tmp_path: Path, soak: bool) -> Machine:
    machine = Machine(tmp_path, seeded(9, soak=soak), size=2 * MIB)
    machine.init()
    machine.rewrite()
    machine.capture()
    return machine


def beside(machine: Machine, folder: Path, name: str) -> Machine:
    """Another machine in the same repository."""
    folder.mkdir()
    other = Machine(folder, machine.random, size=machine.size, cache=machine.cache)
    other.root, other.name = machine.root, name
    other.rewrite()
    return other


def test_a_second_capture_of_a_machine_is_told_who_holds_it_or_waits(machine: Machine):
    with claim(machine.root, machine.name, wait=False):
        done = machine.run("capture", machine.name, machine.disk)
        assert done.returncode == 4
        error = json.loads(done.stderr)["error"]
        assert error["kind"] == "busy"
        assert f"process {os.getpid()} on {os.uname().nodename}" in error["message"]
        assert "--wait" in error["message"]
        waiting = machine.popen(machine.command("capture", machine.name, machine.disk, "--wait"))
        with pytest.raises(TimeoutExpired):
            waiting.wait(3)
    assert machine.finish(waiting) is not None
    assert waiting.returncode == 0
    machine.verify()


def test_machines_are_captured_at_once(machine: Machine, tmp_path: Path, soak: bool):
    others = [beside(machine, tmp_path / name, name) for name in ("vm2", "vm3", "vm4")]
    for _ in range(10 if soak else 1):
        everyone = [machine, *others]
        for one in everyone:
            one.change(40)
        processes = [one.start() for one in everyone]
        for one, process in zip(everyone, processes, strict=True):
            said, errors = process.communicate(timeout=SECONDS)
            assert (process.returncode, errors) == (0, "")
            assert one.acknowledge(said) is not None
    for one in [machine, *others]:
        one.verify()
    assert machine.left_overs() == []


def test_everything_else_works_while_captures_run(machine: Machine, tmp_path: Path, soak: bool):
    mountpoint = tmp_path / "history"
    mountpoint.mkdir()
    if Path("/dev/fuse").exists():
        assert machine.run("mount", mountpoint).returncode == 0
    [(first, content)] = machine.acknowledged.items()
    stop = threading.Event()

    def capture_on() -> None:
        while not stop.is_set():
            machine.change(40)
            machine.capture()

    failures: list[str] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # shown by the test's own thread
            failures.append(repr(error))

    capturing = threading.Thread(target=guarded, args=(capture_on,))
    capturing.start()
    try:
        for _ in range(20 if soak else 1):
            for words in (["check"], ["check", "--deep"], ["log"], ["rebuild"], ["log"]):
                done = machine.run(*words)
                assert (done.returncode, done.stderr) == (0, ""), (words, done.stdout)
            if mountpoint.is_mount():
                read = (mountpoint / machine.name / first / "disk.raw").read_bytes()
                assert hashlib.sha256(read).hexdigest() == content
    finally:
        stop.set()
        capturing.join(SECONDS)
        if mountpoint.is_mount():
            newest = (mountpoint / machine.name / "latest" / "disk.raw").read_bytes()
            done = machine.run("unmount", mountpoint)
            assert done.returncode == 0, done.stderr
            assert newest == machine.disk.read_bytes()
    assert not failures
    assert len(machine.acknowledged) > 2
    machine.verify()


def test_processes_that_make_one_index_at_once_agree(machine: Machine, tmp_path: Path, soak: bool):
    for _ in range(20 if soak else 2):
        machine.change(40)
        machine.capture()
    machine.cache = tmp_path / "new cache"
    command = machine.command("log", machine.name)
    processes = [machine.popen(command) for _ in range(4)]
    said = {process.communicate(timeout=SECONDS) for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    [(lines, errors)] = said
    assert errors == ""
    assert [json.loads(line)["time"] for line in lines.splitlines()] == sorted(machine.acknowledged)
    machine.verify()


class Racer:
    """One of two writers that both believe in their claim."""

    def __init__(self, repository: Repository, content: bytes) -> None:
        self.repository = repository
        self.content = content
        self.outcome = ""

    def run(self, state: MachineState, start: threading.Barrier) -> None:
        time_ns = self.repository.history.now_ns()
        transaction = self.repository.logs.begin(state, time_ns)
        transaction.declare(1, "disk.raw", FileKind.CONTAINER)
        transaction.resize(1, len(self.content))
        transaction.write(1, 0, self.content)
        transaction.instant(time_ns, fuzzy=False)
        start.wait(30)
        try:
            transaction.commit()
            self.outcome = "committed"
        except BusyError as error:
            self.outcome = "fenced" if "fenced this one" in str(error) else str(error)
        self.repository.close()


def test_of_two_writers_with_a_lost_claim_one_is_fenced(machine: Machine, soak: bool):
    for _ in range(50 if soak else 2):
        racers = [
            Racer(Repository(machine.root, machine.cache), machine.random.randbytes(3 * MIB))
            for _ in range(2)
        ]
        states = [racer.repository.logs.state(machine.name) for racer in racers]
        assert states[0].next_number == states[1].next_number
        start = threading.Barrier(2)
        threads = [
            threading.Thread(target=racer.run, args=(state, start))
            for racer, state in zip(racers, states, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(racer.outcome for racer in racers) == ["committed", "fenced"]
        for racer in racers:
            racer.repository.close()
            if racer.outcome == "committed":
                machine.tried.add(hashlib.sha256(racer.content).hexdigest())
        time.sleep(0.001)
        machine.verify(deep=False)
    machine.change(10)
    machine.capture()
    machine.verify()


def test_a_claim_that_was_taken_away_loses_nothing(machine: Machine, soak: bool):
    """Somebody deletes the claims of running captures: real processes race for the numbers."""
    machine.size = 36 * MIB
    for _ in range(10 if soak else 1):
        machine.rewrite()
        first = machine.start()
        held = machine.root / "claims" / (machine.name.encode().hex() + ".claim")
        time.sleep(machine.random.uniform(0.2, 1))
        held.unlink(missing_ok=True)
        second = machine.start()
        for process in (first, second):
            said, errors = process.communicate(timeout=SECONDS)
            assert process.returncode in {0, 4}, errors
            if process.returncode == 0:
                assert machine.acknowledge(said) is not None
        machine.verify()
    machine.change(10)
    machine.capture()
    machine.verify()
    assert machine.left_overs() == []
