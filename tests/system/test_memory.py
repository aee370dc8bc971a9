"""Memory is bounded by configuration: of a capture, of a mount, however much they read."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from store.objects.backend import OPEN_MAX
from store.repository import Repository
from tests.store.history import write_instants
from tests.system.machine import SECONDS, Machine, seeded

MIB = 1 << 20
CAPTURE_MIB_MAX = 300
MOUNT_MIB_MAX = 200
LONG_SECONDS = 3600
pytestmark = [pytest.mark.system, pytest.mark.timeout(0)]


class Watched:
    """A process and the peak of its anonymous memory, looked at every 10 ms."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.peak_mib = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.peak_mib = max(self.peak_mib, self.anonymous_mib())

    def anonymous_mib(self) -> float:
        try:
            status = Path(f"/proc/{self._pid}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        return int(found[1]) / 1024 if found else 0

    def descriptors(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self._pid}/fd").iterdir())

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def write_disk(path: Path, size: int) -> None:
    """Blocks that are all different and half compressible, with a hole and zeros in them."""
    generator = np.random.default_rng(1)
    with path.open("wb") as file:
        for at in range(0, size, 16 * MIB):
            content = np.zeros(16 * MIB, np.uint8)
            blocks = content.reshape(-1, 4096)
            blocks[:, :2048] = generator.integers(0, 256, (len(blocks), 2048), np.uint8)
            if at % (128 * MIB) == 64 * MIB:
                file.seek(16 * MIB, os.SEEK_CUR)
            else:
                file.write(content.tobytes())
        file.truncate(size)


@contextmanager
def mount(machine: Machine, folder: Path) -> Generator[Watched]:
    """A mount in the foreground, watched."""
    if not Path("/dev/fuse").exists():
        pytest.skip("no /dev/fuse here")
    folder.mkdir()
    process = machine.popen(machine.command("mount", "--foreground", folder))
    watched = Watched(process.pid)
    try:
        for _ in range(600):
            if folder.is_mount():
                break
            assert process.poll() is None
            time.sleep(0.05)
        yield watched
    finally:
        watched.stop()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=SECONDS)
    assert errors == ""


def test_capturing_and_reading_a_large_disk(tmp_path: Path, soak: bool):
    machine = Machine(tmp_path, seeded(10, soak=soak), size=(4096 if soak else 512) * MIB)
    machine.init()
    write_disk(machine.disk, machine.size)
    for what in ("first", "again", "third"):
        process = machine.start()
        watched = Watched(process.pid)
        said, errors = process.communicate(timeout=LONG_SECONDS)
        watched.stop()
        assert (process.returncode, errors) == (0, "")
        print(f"capture, {what}: {watched.peak_mib:.0f} MiB; {said.strip()}")
        assert 20 < watched.peak_mib <= CAPTURE_MIB_MAX
        if what == "first":
            continue
        with machine.disk.open("r+b") as file:  # scattered small changes
            for at in range(0, machine.size, MIB):
                file.seek(at + 4096 * machine.random.randrange(256))
                file.write(machine.random.randbytes(4096))
    expected = sha256sum(machine.disk)
    machine.run("capture", machine.name, machine.disk)
    with mount(machine, tmp_path / "history") as watched:
        shown = tmp_path / "history" / machine.name / "latest" / "disk.raw"
        assert sha256sum(shown) == expected
        print(f"mount, read once: {watched.peak_mib:.0f} MiB")
        assert 20 < watched.peak_mib <= MOUNT_MIB_MAX


def sha256sum(path: Path) -> str:
    done = subprocess.run(
        ["sha256sum", path], capture_output=True, text=True, check=True, timeout=LONG_SECONDS
    )
    return done.stdout.split()[0]


def test_many_instants_opened_in_one_live_mount(tmp_path: Path, soak: bool):
    """Opening more instants takes no more memory than the caches and leaks no descriptor."""
    count = 1000 if soak else 60
    machine = Machine(tmp_path, seeded(11, soak=soak), size=0)
    machine.init()
    content = bytearray(machine.random.randbytes(MIB))
    contents: list[bytes] = []
    for _ in range(count):
        at = machine.random.randrange(256) * 4096
        content[at : at + 4096] = machine.random.randbytes(4096)
        contents.append(bytes(content))
    repository = Repository(machine.root, machine.cache)
    times = write_instants(repository, machine.name, contents)
    names = [str(np.datetime64(time_ns, "ns")) + "Z" for time_ns in times]
    repository.close()
    with mount(machine, tmp_path / "history") as watched:

        def read(first: int, end: int) -> None:
            for name, expected in zip(names[first:end], contents[first:end], strict=True):
                shown = tmp_path / "history" / machine.name / name / "disk"
                assert shown.read_bytes() == expected

        first = count // 3
        read(0, first)
        before = watched.anonymous_mib()
        for _ in range(2):
            read(first, count)
        growth = watched.anonymous_mib() - before
        print(f"{count} instants: {before:.0f} MiB after {first}, then {growth:.0f} MiB more")
        assert watched.peak_mib <= MOUNT_MIB_MAX
        assert growth < 64 + 16  # the cache of frames, if it was empty
        assert watched.descriptors() <= OPEN_MAX + 32
        settled, descriptors = watched.anonymous_mib(), watched.descriptors()
        read(0, count)
        assert watched.anonymous_mib() - settled < 8
        assert watched.descriptors() <= descriptors + 2
