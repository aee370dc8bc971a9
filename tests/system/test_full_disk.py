"""Disks that are full or read-only: one plain line, nothing lost, and it goes on afterwards."""

import hashlib
import json
import os
import shutil
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.system.machine import NAME, Machine, seeded
from tests.system.write_log import mounted_at, need_root_and_loops, run

MIB = 1 << 20
pytestmark = [pytest.mark.system, pytest.mark.root]


@pytest.fixture
def disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 160 MiB."""
    need_root_and_loops()
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(160 * MIB)
    run("mkfs.ext4", "-q", "-m", "0", "-J", "size=4", image)
    with mounted_at(image, tmp_path / "disk", "-o", "loop") as folder:
        yield folder


def fill(folder: Path, *, leave: int) -> Path:
    """A file that takes all room but `leave` bytes, more or less."""
    ballast = folder / "ballast"
    ballast.unlink(missing_ok=True)
    os.sync()
    status = os.statvfs(folder)
    size = max(0, status.f_bavail * status.f_frsize - leave)
    with ballast.open("wb") as file:
        while size > 0:
            try:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
            except OSError:
                size -= 64 << 10
            else:
                break
    return ballast


def refusal(done: "tuple[int, str]", kinds: "tuple[str, ...]") -> None:
    """The command failed, and said so in one line."""
    code, errors = done
    assert code == 1, errors
    [line] = errors.splitlines()
    error = json.loads(line)["error"]
    assert error["kind"] in kinds, error
    assert "\n" not in error["message"]


def test_a_capture_that_fills_the_disk_says_so_and_the_next_goes_on(disk: Path, tmp_path: Path):
    machine = Machine(tmp_path, seeded(5, soak=False), size=60 * MIB)
    machine.root = disk / "repository"
    machine.init()
    machine.rewrite()
    fill(disk, leave=75 * MIB)
    machine.capture()
    fill(disk, leave=45 * MIB)
    machine.rewrite()
    before = machine.packs_bytes()
    for _ in range(2):
        process = machine.start()
        said, errors = process.communicate(timeout=60)
        assert said == ""
        refusal((process.returncode, errors), ("full",))
        assert machine.left_overs() == []
        machine.verify()
    sealed = machine.packs_bytes() - before
    assert sealed > 30 * MIB  # the first of two packs
    (disk / "ballast").unlink()
    done = machine.capture()
    assert done["stored_bytes"] + sealed < 1.02 * machine.size
    machine.verify()


def test_wherever_the_room_ends_nothing_acknowledged_is_lost(
    disk: Path, tmp_path: Path, soak: bool
):
    machine = Machine(tmp_path, seeded(6, soak=soak), size=MIB)
    machine.root = disk / "repository"
    machine.init()
    machine.rewrite()
    machine.capture()
    for leave_kib in range(0, 260, 4 if soak else 128):
        fill(disk, leave=leave_kib << 10)
        machine.change(10)
        process = machine.start()
        said, errors = process.communicate(timeout=60)
        if process.returncode == 0:  # durable; that the catalog is behind may be said
            assert machine.acknowledge(said) is not None
            assert len(errors.splitlines()) <= 1
            assert "Traceback" not in errors
        else:
            refusal((process.returncode, errors), ("full",))
        (disk / "ballast").unlink()
        machine.verify()
        assert not list((machine.root / "packs").glob("*/.*"))
    machine.change(10)
    machine.capture()
    machine.verify()
    assert machine.left_overs() == []


def test_a_read_only_repository_is_read_and_mounted_and_captures_say_so(disk: Path, tmp_path: Path):
    machine = Machine(tmp_path, seeded(7, soak=False), size=5 * MIB)
    machine.root = disk / "repository"
    machine.init()
    machine.rewrite()
    machine.capture()
    run("mount", "-o", "remount,ro", disk)
    machine.cache = tmp_path / "new cache"
    machine.verify()
    for words in (["log"], ["ls", NAME], ["ls", f"{NAME}/latest"], ["check", "--deep"]):
        done = machine.run(*words)
        assert (done.returncode, done.stderr) == (0, ""), words
    copy = tmp_path / "copy"
    done = machine.run("restore", f"{NAME}/latest/disk.raw", copy)
    assert done.returncode == 0, done.stderr
    [expected] = machine.acknowledged.values()
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == expected
    mountpoint = tmp_path / "history"
    mountpoint.mkdir()
    done = machine.run("mount", mountpoint)
    assert done.returncode == 0, done.stderr
    try:
        content = (mountpoint / NAME / "latest" / "disk.raw").read_bytes()
        assert hashlib.sha256(content).hexdigest() == expected
    finally:
        assert machine.run("unmount", mountpoint).returncode == 0
    done = machine.run("capture", NAME, machine.disk)
    refusal((done.returncode, done.stderr), ("read-only",))
    run("mount", "-o", "remount,rw", disk)
    machine.change(3)
    machine.capture()
    machine.verify()


def test_a_full_cache_disk_is_one_line_and_what_was_indexed_stays_readable(
    disk: Path, tmp_path: Path, soak: bool
):
    machine = Machine(tmp_path, seeded(8, soak=False), size=20 * MIB)
    machine.cache = disk / "cache"
    machine.init()
    machine.rewrite()
    machine.capture()
    for leave_kib in (0, 64, 200) if soak else (0, 200):
        fill(disk, leave=leave_kib << 10)
        machine.change(2000)  # the digest map and the index grow
        for words in (["capture", NAME, machine.disk], ["log"], ["ls", f"{NAME}/latest"]):
            done = machine.run(*words)
            if done.returncode == 0:
                assert "Traceback" not in done.stderr
                if words[0] == "capture":
                    assert machine.acknowledge(done.stdout) is not None
            else:
                refusal((done.returncode, done.stderr), ("full", "failed"))
                assert "--cache" in done.stderr or "free space" in done.stderr
    (disk / "ballast").unlink()
    machine.verify()
    machine.capture()
    machine.verify()
    assert machine.left_overs() == []
    shutil.rmtree(machine.cache)
    machine.verify()
