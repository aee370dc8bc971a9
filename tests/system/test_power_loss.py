"""Power cuts at any moment: every instant that was acknowledged before is there, byte for byte."""

import copy
import shutil
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from store.index import index as index_module
from tests.system.machine import Machine, seeded
from tests.system.write_log import (
    LoggedDisk,
    Replay,
    entries,
    logged_disk,
    mounted_at,
    need_root_and_loops,
    run,
)

MIB = 1 << 20
DISK_BYTES = 192 * MIB
pytestmark = [pytest.mark.system, pytest.mark.root]


def capture(machine: Machine, disk: LoggedDisk, places: dict[str, int]) -> None:
    """Capture, and note the log's end at the moment of the acknowledgement."""
    process = machine.start()
    assert process.stdout is not None
    said = process.stdout.readline()
    place = disk.place()
    done = machine.acknowledge(said)
    assert done is not None
    places[done["time"]] = place
    assert machine.finish(process) is None
    assert process.returncode == 0


def captures(machine: Machine, disk: LoggedDisk, *, count: int) -> dict[str, int]:
    """A history on the logged disk; answers where in the log each instant was acknowledged."""
    places: dict[str, int] = {}
    machine.init()
    machine.rewrite()
    capture(machine, disk, places)
    for number in range(count):
        if number % 4 == 3:
            machine.rewrite()
        else:
            machine.change(30)
        capture(machine, disk, places)
    return places


@pytest.mark.timeout(0)
def test_after_a_power_cut_every_acknowledged_instant_is_there(
    tmp_path: Path, soak: bool, monkeypatch: pytest.MonkeyPatch
):
    need_root_and_loops()
    random = seeded(4, soak=soak)
    work, mountpoint = tmp_path / "work", tmp_path / "mount"
    work.mkdir()
    machine = Machine(tmp_path, random, size=36 * MIB if soak else 3 * MIB)
    with ExitStack() as stack:
        disk = stack.enter_context(logged_disk(work, DISK_BYTES))
        run("mkfs.ext4", "-q", "-J", "size=8", disk.device)
        stack.enter_context(mounted_at(disk.device, mountpoint))
        machine.root, machine.cache = mountpoint / "repository", mountpoint / "cache"
        begin = disk.place()
        places = captures(machine, disk, count=10 if soak else 3)
        shutil.copytree(machine.cache, tmp_path / "ahead")
    monkeypatch.setattr(index_module, "boot_id", lambda: "after the power cut")
    log = work / "log"
    ends = [entry.end for entry in entries(log) if entry.end > begin]
    chosen = sorted(random.sample(ends, 240 if soak else 10))
    replay = Replay(log, work, DISK_BYTES)
    states = 0
    for number, place in enumerate(chosen):
        cut = replay.cut(place, random if number % 2 else None)
        with mounted_at(cut, mountpoint, "-o", "loop"):
            states += inspect(machine, tmp_path, number, {t for t in places if places[t] <= place})
        if number % 20 == 19:
            print(f"{number + 1} power cuts, {states} instants proved so far")
    print(f"{len(ends)} log entries, {len(chosen)} power cuts, {states} instants proved")


def inspect(machine: Machine, folder: Path, number: int, acknowledged: set[str]) -> int:
    """The repository after one cut, with one of three caches; answers how many instants it has."""
    after = copy.copy(machine)
    after.acknowledged = {t: machine.acknowledged[t] for t in acknowledged}
    if not acknowledged and not (after.root / "repository.json").exists():
        return 0
    if number % 3 == 1:  # the index lost nothing: it knows packs that are not there any more
        after.cache = folder / "cache"
        shutil.rmtree(after.cache, ignore_errors=True)
        shutil.copytree(folder / "ahead", after.cache)
    elif number % 3 == 2:
        after.cache = folder / "new cache"
        shutil.rmtree(after.cache, ignore_errors=True)
    after.verify()
    if number % 10 == 9:
        after.capture()
        after.verify()
        assert after.left_overs() == []
    return len(after.acknowledged)


def test_the_log_made_again_is_the_disk(tmp_path: Path):
    """The parser and the replay against the disk that qemu-storage-daemon wrote itself."""
    need_root_and_loops()
    with logged_disk(tmp_path, 16 * MIB) as disk:
        run("mkfs.ext4", "-q", disk.device)
        with mounted_at(disk.device, tmp_path / "mount") as folder:
            (folder / "file").write_bytes(Random(1).randbytes(3 * MIB))
    last = list(entries(tmp_path / "log"))[-1]
    work = tmp_path / "work"
    work.mkdir()
    again = Replay(tmp_path / "log", work, 16 * MIB).cut(last.end, None)
    assert again.read_bytes() == (tmp_path / "disk").read_bytes()
