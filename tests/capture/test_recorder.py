"""One capture, from names and paths to its instant, on real files and devices."""

import os
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store.clock import Clock
from store.description import create_repository
from store.errors import IsFolderError, NotFoundError, TimefsError, UsageError
from store.repository import Repository
from tests.loop_devices import need_loop_devices
from timefs.recorder import NamedSource, Order, Progress, Recorded, record, silent

SECOND_NS = 1_000_000_000


class SetClock(Clock):
    def __init__(self) -> None:
        self.time_ns = 1_700_000_000 * SECOND_NS

    def now_ns(self) -> int:
        return self.time_ns


class Machine:
    """A repository, a clock that is set by hand, and a folder of sources."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SetClock()
        create_repository(folder / "repo")
        self.repository = Repository(folder / "repo", folder / "cache", self.clock)

    def put(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def capture(self, *paths: Path, progress: Progress | None = None, **order: object) -> Recorded:
        self.clock.time_ns += SECOND_NS
        sources = [NamedSource(path.name, path) for path in paths]
        whole = Order("vm1", sources)._replace(**order)
        return record(self.repository, whole, progress or silent())

    def at(self, time_ns: int | None = None) -> dict[str, bytes]:
        """All files with their bytes at a time, or at the newest instant."""
        if time_ns is None:
            time_ns = self.repository.history.watermark_ns("vm1")
        instant = self.repository.history.at("vm1", time_ns)
        return {
            state.name: self.repository.history.open(instant, state).read(0, state.size)
            for state in self.repository.history.files(instant)
        }

    def packs(self) -> list[Path]:
        return sorted(path for path in (self.folder / "repo/packs").rglob("*") if path.is_file())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@contextmanager
def loop_device(path: Path) -> Generator[Path]:
    need_loop_devices()
    shown = subprocess.run(
        ["losetup", "--find", "--show", str(path)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    device = shown.stdout.strip()
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True, timeout=60)


# Names


def test_a_file_is_known_by_the_name_it_is_given(machine: Machine):
    path = machine.put("disk-000123.img", b"content")
    record(machine.repository, Order("vm1", [NamedSource("disk", path)]), silent())
    assert machine.at() == {"disk": b"content"}


def test_two_paths_with_one_name_are_refused_and_nothing_is_stored(machine: Machine):
    first, second = machine.put("one/disk", b"1"), machine.put("two/disk", b"2")
    with pytest.raises(UsageError, match="would both be disk"):
        machine.capture(first, second)
    assert machine.packs() == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b"])
def test_a_name_that_no_folder_can_hold_is_refused(machine: Machine, name: str):
    path = machine.put("disk", b"1")
    with pytest.raises(UsageError):
        record(machine.repository, Order("vm1", [NamedSource(name, path)]), silent())
    assert machine.packs() == []


@pytest.mark.parametrize("name", ["", "a/b", "@snaps", ".hidden"])
def test_a_machine_whose_name_the_tree_uses_otherwise_is_refused(machine: Machine, name: str):
    path = machine.put("disk", b"1")
    with pytest.raises(UsageError, match="machine"):
        machine.capture(path, machine=name)
    assert machine.packs() == []


@pytest.mark.parametrize("name", [b"caf\xe9", b"line\nfeed", b"x" * 256])
def test_a_name_that_is_no_plain_text_is_refused_unless_another_is_given(
    machine: Machine, name: bytes
):
    path = machine.put("disk", b"content")
    with pytest.raises(UsageError, match="NAME=PATH"):
        record(machine.repository, Order("vm1", [NamedSource(os.fsdecode(name), path)]), silent())
    assert machine.packs() == []


def test_capturing_nothing_is_refused(machine: Machine):
    with pytest.raises(UsageError, match="at least one"):
        machine.capture()


# What a capture says of files


def test_a_file_that_is_not_named_keeps_its_last_bytes(machine: Machine):
    first, second = machine.put("a", b"a1"), machine.put("b", b"b1")
    machine.capture(first, second)
    first.write_bytes(b"a2")
    second.write_bytes(b"b2")
    machine.capture(first)
    assert machine.at() == {"a": b"a2", "b": b"b1"}


def test_a_dropped_file_ends_and_its_past_stays(machine: Machine):
    first, second = machine.put("a", b"a1"), machine.put("b", b"b1")
    before = machine.capture(first, second).time_ns
    machine.capture(first, drop=["b"])
    assert machine.at() == {"a": b"a1"}
    assert machine.at(before) == {"a": b"a1", "b": b"b1"}


def test_dropping_alone_makes_an_instant(machine: Machine):
    machine.capture(machine.put("a", b"a1"), machine.put("b", b"b1"))
    machine.capture(drop=["a"])
    assert machine.at() == {"b": b"b1"}


def test_a_dropped_file_can_come_back(machine: Machine):
    path = machine.put("a", bytes(range(256)) * 64)
    keep = machine.put("keep", b"1")
    machine.capture(path, keep)
    gone = machine.capture(keep, drop=["a"]).time_ns
    path.write_bytes(bytes(range(256)) * 60)
    machine.capture(path)
    assert machine.at() == {"a": path.read_bytes(), "keep": b"1"}
    assert machine.at(gone) == {"keep": b"1"}


@pytest.mark.parametrize("twice", [False, True])
def test_dropping_what_is_not_there_is_refused(machine: Machine, twice: bool):
    path = machine.put("a", b"1")
    machine.capture(path, machine.put("b", b"1"))
    if twice:
        machine.capture(drop=["b"])
    packs = machine.packs()
    with pytest.raises(UsageError, match="no file b to drop" if twice else "no file c to drop"):
        machine.capture(path, drop=["b" if twice else "c"])
    assert machine.packs() == packs


def test_capturing_and_dropping_one_file_is_refused(machine: Machine):
    path = machine.put("a", b"1")
    machine.capture(path)
    with pytest.raises(UsageError, match="not both"):
        machine.capture(path, drop=["a"])


def test_a_file_that_moved_continues_its_history(machine: Machine):
    content = os.urandom(1 << 20)
    before = machine.capture(machine.put("old/disk", content)).time_ns
    moved = machine.put("new/disk", content)
    done = machine.capture(moved)
    assert done.new_bytes == done.duplicate_bytes == 0
    numbers = {
        state.number
        for instant in machine.repository.history.instants("vm1")
        for state in machine.repository.history.files(instant)
    }
    assert len(numbers) == 1
    assert machine.at(before) == machine.at() == {"disk": content}


def test_all_files_of_a_capture_share_one_instant(machine: Machine):
    machine.capture(*[machine.put(f"disk{number}", b"x" * number) for number in range(5)])
    assert len(machine.repository.history.instants("vm1")) == 1
    assert len(machine.at()) == 5


# Sizes and holes


@pytest.mark.parametrize(
    ("old", "new"),
    [(0, 1), (1, 0), (5_000, 8_192), (8_192, 5_000), (4_096, 4_097), (9 << 20, 3), (3, 9 << 20)],
)
def test_growing_and_shrinking_are_history(machine: Machine, old: int, new: int):
    content = os.urandom(max(old, new))
    path = machine.put("disk", content[:old])
    before = machine.capture(path).time_ns
    path.write_bytes(content[:new])
    between = machine.capture(path).time_ns
    path.write_bytes(content[:old])
    machine.capture(path)
    assert machine.at(before) == machine.at() == {"disk": content[:old]}
    assert machine.at(between) == {"disk": content[:new]}


def test_what_was_cut_off_does_not_come_back_when_the_file_grows(machine: Machine):
    path = machine.put("disk", b"x" * 20_000)
    machine.capture(path)
    os.truncate(path, 5_000)
    machine.capture(path)
    os.truncate(path, 20_000)
    machine.capture(path)
    assert machine.at() == {"disk": b"x" * 5_000 + bytes(15_000)}


def test_a_hole_of_a_tebibyte_is_not_read(machine: Machine):
    path = machine.put("disk", b"head")
    with path.open("r+b") as file:
        file.truncate(1 << 40)
        file.seek((1 << 39) + 4096 + 17)
        file.write(b"middle")
    done = machine.capture(path)
    assert done.read_bytes <= 2 << 20
    instant = machine.repository.history.latest("vm1")
    (state,) = machine.repository.history.files(instant)
    image = machine.repository.history.open(instant, state)
    assert image.size == 1 << 40
    assert image.read(0, 6) == b"head\0\0"
    assert image.read((1 << 39) + 4096 + 15, 10) == b"\0\0middle\0\0"
    assert image.read((1 << 40) - 5, 10) == bytes(5)
    with path.open("r+b") as file:
        file.seek((1 << 40) - 3)
        file.write(b"end")
    machine.capture(path)
    latest = machine.repository.history.latest("vm1")
    image = machine.repository.history.open(latest, machine.repository.history.files(latest)[0])
    assert image.read((1 << 40) - 5, 10) == b"\0\0end"


def test_a_hole_punched_where_data_was_is_zeros_from_then_on(machine: Machine):
    content = os.urandom(1 << 20)
    path = machine.put("disk", content)
    before = machine.capture(path).time_ns
    subprocess.run(
        ["fallocate", "--punch-hole", "--offset", "65536", "--length", "524288", str(path)],
        check=True,
        timeout=60,
    )
    machine.capture(path)
    assert machine.at(before) == {"disk": content}
    assert machine.at() == {"disk": content[:65536] + bytes(524288) + content[589824:]}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
def test_a_block_device_is_captured_whole_and_then_by_its_changes(machine: Machine):
    backing = machine.put("backing", os.urandom(6 << 20))
    with loop_device(backing) as device:
        machine.capture(device, sources=[NamedSource("disk", device)])
        assert machine.at() == {"disk": backing.read_bytes()}
        with device.open("r+b", buffering=0) as file:
            file.seek(1 << 20)
            file.write(bytes(4096) + b"x" * 4096)
            os.fsync(file.fileno())
        done = machine.capture(device, sources=[NamedSource("disk", device)])
        assert done.new_bytes == 4096
        assert machine.at() == {"disk": backing.read_bytes()}


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="loop devices need root")
def test_a_block_device_written_while_it_is_read_makes_the_instant_fuzzy(machine: Machine):
    with loop_device(machine.put("backing", os.urandom(6 << 20))) as device:

        def write(_bytes: int) -> None:
            with device.open("r+b", buffering=0) as file:
                file.write(os.urandom(4096))
                os.fsync(file.fileno())

        progress = Progress(silent().start, write)
        done = machine.capture(device, sources=[NamedSource("disk", device)], progress=progress)
        assert done.fuzzy == ["disk"]


# Sources that cannot be captured


def test_a_source_that_is_not_there_stores_nothing(machine: Machine):
    with pytest.raises(NotFoundError, match="no such file"):
        machine.capture(machine.put("a", b"1"), machine.folder / "absent")
    assert machine.packs() == []


def test_a_folder_is_refused(machine: Machine):
    with pytest.raises(IsFolderError, match="found a folder"):
        machine.capture(machine.folder)
    assert machine.packs() == []


def test_a_pipe_is_refused_at_once(machine: Machine):
    os.mkfifo(machine.folder / "pipe")
    with pytest.raises(IsFolderError, match="neither a file nor a block device"):
        machine.capture(machine.folder / "pipe")


def test_a_path_through_a_file_is_refused_in_plain_words(machine: Machine):
    with pytest.raises(TimefsError, match="Not a directory; nothing was stored"):
        machine.capture(machine.put("a", b"1") / "b")


# Time


def test_older_copies_are_imported_in_order(machine: Machine):
    path = machine.put("disk", b"1")
    first = machine.clock.time_ns - 900 * SECOND_NS
    for number in range(3):
        path.write_bytes(b"%d" % number)
        machine.capture(path, at_ns=first + number * SECOND_NS)
    assert [machine.at(first + n * SECOND_NS)["disk"] for n in range(3)] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("later_ns", [0, -1, -SECOND_NS])
def test_an_import_not_after_the_newest_instant_is_refused(machine: Machine, later_ns: int):
    path = machine.put("disk", b"1")
    newest = machine.capture(path).time_ns
    packs = machine.packs()
    with pytest.raises(UsageError, match="expected a time after its newest instant"):
        machine.capture(path, at_ns=newest + later_ns)
    assert machine.packs() == packs


def test_an_import_from_the_future_is_refused(machine: Machine):
    with pytest.raises(UsageError, match="not after now"):
        machine.capture(machine.put("disk", b"1"), at_ns=machine.clock.time_ns + 3600 * SECOND_NS)


def test_a_clock_that_went_back_is_refused_and_loses_nothing(machine: Machine):
    path = machine.put("disk", b"1")
    machine.capture(path)
    machine.clock.time_ns -= 3600 * SECOND_NS
    path.write_bytes(b"2")
    with pytest.raises(UsageError, match="this host's clock"):
        machine.capture(path)
    assert machine.at() == {"disk": b"1"}
    machine.clock.time_ns += 7200 * SECOND_NS
    machine.capture(path)
    assert machine.at() == {"disk": b"2"}


# Changes while reading


@pytest.mark.parametrize("how", ["mtime", "grow", "shrink", "replace"])
def test_a_change_while_reading_makes_the_instant_fuzzy(machine: Machine, how: str):
    path = machine.put("disk", os.urandom(8 << 20))
    quiet = machine.put("quiet", b"1")
    machine.capture(path, quiet)
    once = threading.Event()

    def change(_bytes: int) -> None:
        if once.is_set():
            return
        once.set()
        if how == "mtime":
            with path.open("r+b") as file:
                file.write(os.urandom(10))
            os.utime(path, ns=(1, machine.clock.time_ns))
        elif how == "replace":
            machine.put("other", b"2").replace(path)
        else:
            os.truncate(path, (9 << 20) if how == "grow" else 100)

    path.touch()
    done = machine.capture(path, quiet, progress=Progress(silent().start, change))
    assert done.fuzzy == ["disk"]
    newest = machine.repository.history.instants("vm1")[-1]
    assert newest.fuzzy
    assert machine.repository.history.latest("vm1") != newest
    machine.capture(path, quiet)
    assert machine.at()["disk"] == path.read_bytes()
    assert machine.repository.history.latest(
        "vm1"
    ).time_ns == machine.repository.history.watermark_ns("vm1")


def test_the_newest_fuzzy_instant_is_the_latest_while_there_is_no_other(machine: Machine):
    path = machine.put("disk", os.urandom(1 << 20))

    def change(_bytes: int) -> None:
        path.touch()

    for _ in range(2):
        assert machine.capture(path, progress=Progress(silent().start, change)).fuzzy
    assert (
        machine.repository.history.latest("vm1") == machine.repository.history.instants("vm1")[-1]
    )


def test_progress_is_told_the_whole_size_and_reaches_it(machine: Machine):
    path = machine.put("disk", os.urandom(5 << 20))
    os.truncate(path, 64 << 20)
    totals: list[int] = []
    done: list[int] = []
    machine.capture(path, progress=Progress(totals.append, done.append))
    assert totals == [64 << 20] == [sum(done)]


# Duplicates and cost


def test_a_second_capture_of_the_same_bytes_stores_no_block(machine: Machine):
    path = machine.put("disk", os.urandom(3 << 20))
    assert machine.capture(path).new_bytes == 3 << 20
    done = machine.capture(path)
    assert (done.new_bytes, done.duplicate_bytes) == (0, 0)
    assert done.stored_bytes < 1000


def test_only_changed_blocks_are_stored(machine: Machine):
    content = bytearray(os.urandom(3 << 20))
    path = machine.put("disk", bytes(content))
    machine.capture(path)
    content[1_000_000:1_000_010] = b"0123456789"
    path.write_bytes(content)
    assert machine.capture(path).new_bytes == 4096
    assert machine.at() == {"disk": bytes(content)}


def test_a_lost_digest_map_is_made_again_from_the_packs(machine: Machine):
    path = machine.put("disk", os.urandom(3 << 20) + b"tail")
    machine.capture(path)
    for kept in (machine.repository.cache / "digests").iterdir():
        kept.unlink()
    done = machine.capture(path)
    assert (done.new_bytes, done.duplicate_bytes) == (0, 0)


def test_a_torn_digest_map_is_not_believed(machine: Machine):
    content = bytearray(os.urandom(3 << 20))
    path = machine.put("disk", bytes(content))
    machine.capture(path)
    (kept,) = (machine.repository.cache / "digests").iterdir()
    stored = bytearray(kept.read_bytes())
    stored[1000] ^= 1
    kept.write_bytes(stored)
    content[4096] ^= 1
    path.write_bytes(content)
    machine.capture(path)
    assert machine.at() == {"disk": bytes(content)}


# What a capture says of instants


def test_a_capture_that_finds_nothing_new_makes_an_instant_that_is_no_change(machine: Machine):
    disk, notes = machine.put("disk", b"content" * 1000), machine.put("notes", b"text")
    machine.capture(disk, notes)
    machine.capture(disk, notes)
    machine.put("disk", b"another" * 1000)
    machine.capture(disk, notes)
    machine.capture(disk, notes)
    machine.put("notes", b"shorter"[:3])
    machine.capture(disk, notes)
    machine.capture(disk, drop=["notes"])
    machine.capture(disk)
    every = machine.repository.history.instants("vm1")
    changed = machine.repository.history.changed("vm1")
    assert len(every) == 7
    assert [every.index(instant) for instant in changed] == [0, 2, 4, 5]
