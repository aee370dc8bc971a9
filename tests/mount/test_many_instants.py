# ruff: noqa: PTH208
# The system calls themselves are what is tested here.
"""A thousand instants opened in one live mount: nothing grows beyond the caches."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.timetree.memory_history import MemoryHistory
from timefs.mount.core import FileSystem
from timefs.mount.fuse.mounting import attach, detach
from timefs.mount.fuse.server import Server
from timefs.mount.mounting import unmount
from timefs.times import SECOND_NS
from timefs.timetree import TimeTree

ROOT = Path(__file__).parents[2]
TEN = 1_714_557_600 * SECOND_NS


class Running:
    """A server in a process of its own and what /proc says of it."""

    def __init__(self, mountpoint: Path, process: "subprocess.Popen[str]") -> None:
        self.machine = mountpoint / "vm1"
        self._process = process

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def anonymous_kib(self) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1])


@pytest.fixture
def server(tmp_path: Path) -> Generator[Running, None, None]:
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    module = "tests.mount.serve_memory"
    arguments = ["foreground", "large", str(mountpoint), str(tmp_path / "r"), str(tmp_path / "log")]
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield Running(mountpoint, process)
        unmount(mountpoint)
        process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=30)


@pytest.mark.system
def test_a_thousand_instants_leave_no_descriptor_and_no_memory(server: Running):
    names = [name for name in os.listdir(server.machine) if name.startswith("2024")]
    assert len(names) == 1000

    def read(chosen: list[str]) -> None:
        for name in chosen:
            disk = server.machine / name / "disk.bin"
            assert disk.stat().st_size == 4 * 65536
            assert len(disk.read_bytes()) == 4 * 65536

    read(names[:200])
    descriptors, anonymous_kib = server.descriptors(), server.anonymous_kib()
    read(names[200:])
    assert server.descriptors() == descriptors
    assert server.anonymous_kib() - anonymous_kib < 4096


def test_handles_are_given_back_by_forget():
    history = MemoryHistory(TEN + 3600 * SECOND_NS)
    for number in range(100):
        history.seal("vm1", TEN + number * SECOND_NS, {"disk.bin": b"%d" % number})
    core = FileSystem(TimeTree(history).root)
    machine = core.lookup(1, b"vm1")
    given: list[int] = []
    for number in range(100):
        instant = core.lookup(machine.node_id, b"2024-05-01T10:00:%02dZ" % (number % 60))
        disk = core.lookup(instant.node_id, b"disk.bin")
        given += [instant.node_id, disk.node_id]
    assert len(core.handles) == 1 + 1 + 2 * 60
    for node_id in given:
        core.forget(node_id, 1)
    assert len(core.handles) == 2
    again = core.lookup(machine.node_id, b"2024-05-01T10:00:00Z")
    assert again.node_id not in given


@pytest.mark.system
@pytest.mark.root
def test_when_the_kernel_drops_its_caches_the_handles_go(tmp_path: Path):
    history = MemoryHistory(TEN + 3600 * SECOND_NS)
    for number in range(300):
        history.seal("vm1", TEN + number * SECOND_NS, {"disk.bin": b"%d" % number})
    core = FileSystem(TimeTree(history).root)
    server = Server(attach(tmp_path, allow_other=False), core, 2)
    server.negotiate()
    server.start()
    try:
        assert len(list(tmp_path.glob("vm1/2024*/disk.bin"))) == 300
        assert len(core.handles) > 600
        Path("/proc/sys/vm/drop_caches").write_text("2\n")
        for _ in range(100):
            if len(core.handles) < 10:
                break
            time.sleep(0.05)
        assert len(core.handles) < 10
    finally:
        detach(tmp_path)
        server.wait(10)
