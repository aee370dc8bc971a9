"""Others change the target meanwhile: nothing is written elsewhere, and nothing shown too early."""

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from store.image import Image
from tests.cli.program import PROGRAM, Place
from tests.cli.restoring import everything, file, folder, restored
from tests.guest.kernel import need, run
from tests.timetree.memory_tree import MemoryFile
from timefs.tree import Attributes, Folder, Node

SWAPS = 200
NOBODY = 65534

SWAPPER = """
import os, sys
folder, outside, swaps = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
number = 0
while number < swaps:
    aside = f"{folder}.{number}"
    try:
        os.rename(folder, aside)
        os.symlink(outside, folder)
    except OSError:  # not there yet, or made again at once
        continue
    number += 1
    for _ in range(100):
        os.sched_yield()
    os.unlink(folder)
    try:
        os.rename(aside, folder)
    except OSError:  # made again meanwhile
        pass
"""


class Meanwhile(MemoryFile):
    """A file at whose turn somebody does something."""

    def __init__(self, name: bytes, act: Callable[[], object]) -> None:
        super().__init__(name, name)
        self._act = act

    def open(self) -> Image:
        self._act()
        return super().open()


def of_mode(node: MemoryFile | Folder, mode: int) -> Node:
    """The node with the permissions given."""
    shown = node.attributes()

    def attributes() -> Attributes:
        return shown._replace(mode=stat.S_IFMT(shown.mode) | mode)

    node.attributes = attributes
    return node


def files(prefix: bytes, count: int) -> dict[bytes, Node]:
    return {b"%b%d" % (prefix, n): file(b"guest", b"%b%d" % (prefix, n)) for n in range(count)}


# Nothing outside


def test_a_folder_that_becomes_a_link_is_not_followed(tmp_path: Path):
    outside, inside = tmp_path / "outside", tmp_path / "into" / "name"
    outside.mkdir()
    inside.parent.mkdir()

    def swap() -> None:
        (inside / "docs").rename(inside / "aside")
        (inside / "docs").symlink_to(outside)

    docs = folder(
        b"docs",
        {
            b"swap": Meanwhile(b"swap", swap),
            **files(b"f", 9),
            b"deeper": folder(b"d", files(b"g", 3)),
        },
    )
    done, errors = restored(folder(b"root", {b"docs": docs, **files(b"z", 2)}), inside.parent)
    assert everything(outside) == set()
    assert len(errors) == 1
    assert str(errors[0]).startswith(f"{inside}/docs: somebody renamed this folder meanwhile; ")
    assert len(everything(inside / "aside")) == 14
    assert done.files == 15


def test_a_folder_in_whose_place_a_link_is_when_it_is_made_is_an_error(tmp_path: Path):
    outside, inside = tmp_path / "outside", tmp_path / "into" / "name"
    outside.mkdir()
    inside.parent.mkdir()
    plant = Meanwhile(b"plant", lambda: (inside / "docs").symlink_to(outside))
    tree = folder(b"root", {b"plant": plant, b"docs": folder(b"docs", files(b"f", 3))})
    done, errors = restored(tree, inside.parent, force=True)
    assert everything(outside) == set()
    assert (done.failed, done.unreached) == (1, 3)
    assert str(errors[0]).startswith(f"{inside}/docs: expected a folder or nothing there")


def test_a_folder_that_was_moved_elsewhere_ends_the_way_back(tmp_path: Path):
    """Of those above it, only those can be gone on in that are still open."""
    elsewhere, inside = tmp_path / "elsewhere", tmp_path / "into" / "name"
    elsewhere.mkdir()
    inside.parent.mkdir()
    top = inside / "d" / "d" / "d"

    def move() -> None:
        top.rename(elsewhere / "moved")
        (inside / "d" / "d" / "d").symlink_to(elsewhere)

    tree = folder(b"bottom", {b"move": Meanwhile(b"move", move)})
    for level in range(60):
        tree = folder(b"%d" % level, {b"d": tree, **files(b"%d-" % level, 1)})
    done, errors = restored(folder(b"root", {b"d": tree, **files(b"z", 2)}), inside.parent)
    assert everything(elsewhere) >= {"moved"}
    assert {path.name for path in elsewhere.iterdir()} == {"moved"}
    assert len(errors) == 1
    assert "somebody moved this folder elsewhere" in str(errors[0])
    assert (inside / "z0").read_bytes() == (inside / "z1").read_bytes() == b"guest"
    assert done.files + done.unreached == 63


def test_a_name_that_is_taken_meanwhile_is_not_replaced(tmp_path: Path):
    taken = tmp_path / "name" / "taken"
    tree = folder(b"root", {b"taken": Meanwhile(b"taken", lambda: taken.write_bytes(b"mine"))})
    _, errors = restored(tree, tmp_path)
    assert [str(error) for error in errors] == [f"{taken}: file exists"]
    assert taken.read_bytes() == b"mine"
    assert everything(tmp_path) == {"name", "name/taken"}


def test_a_folder_that_is_deleted_meanwhile_is_an_error_of_its_own(tmp_path: Path):
    docs = tmp_path / "name" / "docs"
    delete = Meanwhile(b"delete", lambda: shutil.rmtree(docs))
    tree = folder(b"root", {b"docs": folder(b"docs", {b"delete": delete}), **files(b"z", 1)})
    done, errors = restored(tree, tmp_path)
    assert {type(error).__name__ for error in errors} == {"NotFoundError"}
    assert everything(tmp_path) == {"name", "name/z0"}
    assert done.files == 1


def test_two_hundred_swaps_lead_nowhere(tmp_path: Path):
    outside, into = tmp_path / "outside", tmp_path / "into"
    outside.mkdir()
    into.mkdir()
    tree = folder(b"root", {b"docs": folder(b"docs", files(b"f", 5)), **files(b"z", 2)})
    command = [sys.executable, "-c", SWAPPER, into / "name" / "docs", outside, str(SWAPS)]
    swapper = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == b"ready\n"
        while swapper.poll() is None:
            restored(tree, into, force=True)
            assert everything(outside) == set()
    finally:
        swapper.kill()
        swapper.communicate(timeout=60)
    assert swapper.returncode == 0
    assert (into / "name" / "z1").read_bytes() == b"guest"


# Nothing too early


def test_what_is_not_finished_is_its_owners_alone(tmp_path: Path):
    seen: list[tuple[str, int]] = []

    def look() -> None:
        for path in tmp_path.rglob("*"):
            seen.append((path.name, stat.S_IMODE(path.lstat().st_mode)))

    private = of_mode(
        folder(b"private", {b"look": Meanwhile(b"look", look), **files(b"f", 1)}), 0o700
    )
    old = os.umask(0)
    try:
        restored(folder(b"root", {b"private": private}), tmp_path)
    finally:
        os.umask(old)
    assert dict(seen).keys() >= {"name", "private"}
    assert {mode & 0o077 for _, mode in seen} == {0}
    assert stat.S_IMODE((tmp_path / "name").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "name" / "private").stat().st_mode) == 0o700


def test_a_folder_that_was_there_keeps_its_permissions(tmp_path: Path):
    (tmp_path / "name" / "mine").mkdir(parents=True)
    (tmp_path / "name" / "mine").chmod(0o711)
    open_to_all = of_mode(folder(b"mine", files(b"f", 1)), 0o777)
    restored(
        folder(b"root", {b"mine": open_to_all, b"new": of_mode(folder(b"n", {}), 0o770)}), tmp_path
    )
    assert stat.S_IMODE((tmp_path / "name" / "mine").stat().st_mode) == 0o711
    assert stat.S_IMODE((tmp_path / "name" / "new").stat().st_mode) == 0o770


CALLS = "openat,open,creat,mkdirat,mkdir,symlinkat,symlink,linkat,link,rename,renameat,renameat2"
CHANGES = "unlinkat,unlink,chmod,fchmod,fchmodat,utimensat,truncate,pwrite64,fdatasync"


@pytest.fixture
def guest(place: Place) -> Place:
    """A repository with a disk of folders, files and a link."""
    need("mkfs.ext4")
    source = place.folder / "source"
    (source / "docs" / "deeper").mkdir(parents=True)
    for name in ("one", "docs/two", "docs/deeper/three"):
        (source / name).write_bytes(name.encode() * 1000)
        (source / name).chmod(0o600)
    (source / "docs" / "link").symlink_to("two")
    run("mkfs.ext4", "-q", "-F", "-d", source, place.folder / "disk.img", "16M")
    place.run("-r", "repo", "init")
    place.run("-r", "repo", "capture", "vm1", "disk.img")
    return place


@pytest.mark.system
def test_every_change_is_one_name_in_an_open_folder_and_private_until_whole(guest: Place):
    need("strace")
    into, trace = guest.folder / "into", guest.folder / "trace"
    into.mkdir()
    strace = ["strace", "-f", "-y", "-o", trace, "-e", f"trace={CALLS},{CHANGES}"]
    words = ["-r", "repo", "restore", "vm1/latest/disk", into]
    subprocess.run(
        [*strace, PROGRAM, *words], cwd=guest.folder, env=guest.environment, timeout=120, check=True
    )
    lines = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines()]
    ours = [line for line in lines if str(into) in line]
    named = [line for line in ours if not re.match(r"(fchmod|pwrite64|fdatasync)\(\d+<", line)]
    (first,) = [line for line in named if f'"{into}' in line]
    assert first.startswith("openat(AT_FDCWD")
    for line in named:
        for name in re.findall(r'"([^"]*)"', line):
            assert line is first or "/" not in name or line.startswith("symlinkat"), line
    created = [line for line in ours if "O_CREAT" in line]
    assert len(created) == 3
    assert all("O_EXCL|" in line and "O_NOFOLLOW" in line and ", 0600)" in line for line in created)
    made = [line for line in ours if line.startswith("mkdirat")]
    assert len(made) >= 3
    assert all(", 0700)" in line for line in made)
    placed = [number for number, line in enumerate(ours) if line.startswith("linkat")]
    before = [[line.split("(")[0] for line in ours[at - 3 : at]] for at in placed]
    assert before.count(["fdatasync", "utimensat", "fchmod"]) == 3
    assert [calls[-1] for calls in before].count("symlinkat") == 1
    assert len(placed) == 4


INTRUDER = """
import os, sys, time
folder, user = sys.argv[1], int(sys.argv[2])
os.setgroups([])
os.setgid(user)
os.setuid(user)
print("ready", flush=True)
while not os.path.exists(folder):
    time.sleep(0.001)
os.rename(folder, folder + ".aside")
os.mkdir(folder)
"""


@pytest.mark.system
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be another user")
def test_a_folder_that_another_user_puts_in_place_of_a_new_one_is_left_alone(guest: Place):
    """Else he reads what the guest's folder keeps to its owner. The new one is opened late."""
    need("strace")
    with tempfile.TemporaryDirectory() as below:
        into = Path(below)
        os.chown(into, NOBODY, NOBODY)
        intruder = subprocess.Popen(
            [sys.executable, "-c", INTRUDER, into / "disk", str(NOBODY)],
            stdout=subprocess.PIPE,
        )
        try:
            assert intruder.stdout is not None
            assert intruder.stdout.readline() == b"ready\n"
            late = ["strace", "-f", "-o", "/dev/null", "-e", "inject=mkdirat:delay_exit=1000000"]
            done = subprocess.run(
                [*late, PROGRAM, "-r", "repo", "restore", "vm1/latest/disk", into],
                cwd=guest.folder,
                env=guest.environment,
                capture_output=True,
                timeout=120,
                check=False,
            )
        finally:
            intruder.kill()
            intruder.communicate(timeout=60)
        assert done.returncode == 1
        assert b"somebody put another folder in its place" in done.stderr
        assert everything(into) == {"disk", "disk.aside"}


# Killed


@pytest.mark.system
def test_killed_it_leaves_names_that_say_so_and_the_next_run_works(place: Place):
    with (place.folder / "large").open("wb") as large:
        for _ in range(6):
            large.write(os.urandom(8 << 20))
    place.run("-r", "repo", "init")
    place.run("-r", "repo", "capture", "vm1", "large")
    out = place.folder / "out"
    out.mkdir()
    words = ["-r", "repo", "restore", "vm1/latest/large", "out"]
    process = subprocess.Popen([PROGRAM, *words], cwd=place.folder, env=place.environment)
    while not everything(out):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    (left,) = everything(out)
    assert left.startswith(f".restore-{process.pid}-")
    assert left.endswith(".timefs")
    place.run(*words)
    assert (out / "large").read_bytes() == (place.folder / "large").read_bytes()


# Deep and wide


def test_two_thousand_levels_need_few_descriptors(tmp_path: Path):
    counts: list[int] = []

    def count() -> None:
        counts.append(sum(1 for _ in Path("/proc/self/fd").iterdir()))

    tree = folder(b"bottom", {b"count": Meanwhile(b"count", count)})
    for level in range(2000):
        tree = folder(b"%d" % level, {b"d" * 100: tree})
        if level % 200 == 0:
            tree = folder(b"l%d" % level, {b"d": tree, b"count": Meanwhile(b"c", count)})
    count()
    try:
        done, errors = restored(tree, tmp_path)
        assert (done.files, done.folders, errors) == (11, 2_011, [])
        assert max(counts) <= counts[0] + 40
    finally:  # too deep for those who tidy up after the tests
        subprocess.run(["rm", "-r", tmp_path / "name"], check=True, timeout=60)
