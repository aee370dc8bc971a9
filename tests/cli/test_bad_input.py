"""What is refused: one plain line, the right exit code, and nothing lost."""

import os
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from tests.cli.conftest import World
from tests.cli.program import PROGRAM, Place

pytestmark = pytest.mark.system
DAY = "vm1/2026-05-01T10:00"
DISK = f"{DAY}/disk.vhdx"
BLOCK_TABLE = UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
"""[MS-VHDX] 2.2.3.2: the region that holds the block allocation table."""


@pytest.fixture
def made(world: World, place: Place) -> Place:
    """A repository that may be harmed."""
    world.copied_to(place)
    (place.folder / "file").write_bytes(b"content")
    return place


@contextmanager
def small_disk(folder: Path, options: str) -> Generator[Path]:
    """A file system of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(mount, check=True, timeout=30)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=30)


# Which repository


def test_no_repository_named(place: Place):
    assert "give -r REPO, or set TIMEFS_REPO" in place.refused("ls", code=2)


def test_a_folder_that_is_no_repository(place: Place):
    for path in ("nowhere", "."):
        said = place.refused("-r", path, "ls", code=10)
        assert said.startswith(str(place.folder))
        assert "no repository here" in said
        assert "init" in said


def test_init_over_something(made: Place):
    before = sorted((made.folder / "repo").rglob("*"))
    assert "empty or new directory" in made.refused("-r", "repo", "init")
    assert "found a file" in made.refused("-r", "file", "init")
    assert sorted((made.folder / "repo").rglob("*")) == before


def test_a_newer_format(made: Place):
    path = made.folder / "repo" / "repository.json"
    path.chmod(0o600)
    path.write_text(path.read_text().replace('"format": 1', '"format": 9'))
    for words in (["ls"], ["capture", "vm1", "file"], ["check"]):
        said = made.refused("-r", "repo", *words)
        assert "expected repository format 1" in said
        assert "use a newer timefs" in said


def test_a_description_cut_short(made: Place):
    path = made.folder / "repo" / "repository.json"
    path.chmod(0o600)
    path.write_text(path.read_text()[:40])
    assert "put the file back" in made.refused("-r", "repo", "ls", code=5)


# Which path


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("vm9", "vm9: no such machine"),
        ("vm1/2026-04-30", "before the first instant"),
        ("vm1/2200-01-01", "lies in the future"),
        ("vm1/2026-13-01", "not a time; write it like"),
        ("vm1/noon", "not a time; write it like"),
        ("vm1/2026-05-01T10:00/none.vhdx", "no such file at this instant"),
        ("vm1/2026-05-01T10:00/disk.d/p7", "no such volume"),
        ("vm1/2026-05-01T10:00/disk/docs/none", "no such file or folder"),
        ("vm1/2026-05-01T10:00/disk.vhdx/more", "expected a folder, found a file"),
        ("vm1/@snaps/noon", "expected a name like @GMT-"),
    ],
)
def test_a_path_that_leads_nowhere(world: World, path: str, words: str):
    for command in (["ls"], ["cat"], ["restore", "--force"]):
        target = ["nothing"] if command[0] == "restore" else []
        said = world.place.refused("-r", "repo", *command, path, *target)
        assert words in said
        assert said.count(path.rpartition("/")[2]) <= 1, "what is wrong is named once"
    assert not (world.place.folder / "nothing").exists()


def test_a_file_where_a_folder_is_needed_and_the_other_way_round(world: World):
    assert "expected a file" in world.place.refused("-r", "repo", "cat", f"{DAY}/disk/docs")
    assert "expected a file" in world.place.refused("-r", "repo", "cat", DAY)
    for command in (["du"], ["find", "-name", "*"]):
        said = world.place.refused("-r", "repo", *command, DISK)
        assert "found a file" in said


def test_wrong_words(world: World):
    for words in (
        ["frobnicate"],
        ["ls", "--frobnicate"],
        ["ls", "a", "b"],
        ["capture"],
        ["restore", DISK],
        ["mount"],
        ["-r", "repo"],
        ["-r"],
        ["mount", "x", "--names", "gmt"],
    ):
        said = world.place.refused(*words, code=2)
        assert "see `timefs" in said
        assert "--help`" in said


# Capturing


def refuses_capture(made: Place, *words: str | Path, code: int = 1) -> str:
    before = sorted((made.folder / "repo" / "packs").rglob("*"))
    said = made.refused("-r", "repo", "capture", *words, code=code)
    assert sorted((made.folder / "repo" / "packs").rglob("*")) == before, "nothing was stored"
    return said


def test_sources_that_cannot_be_captured(made: Place):
    os.mkfifo(made.folder / "pipe")
    assert "none: no such file; nothing was stored" in refuses_capture(made, "vm1", "none")
    assert "found a folder" in refuses_capture(made, "vm1", ".")
    assert "neither a file nor a block device" in refuses_capture(made, "vm1", "pipe")
    assert "neither a file nor a block device" in refuses_capture(made, "vm1", "/dev/null")
    assert "ot a directory; nothing was stored" in refuses_capture(made, "vm1", "file/more")
    said = refuses_capture(made, "vm1", "file", "none")
    assert said == "none: no such file; nothing was stored"


def test_a_source_this_user_may_not_read(made: Place):
    (made.folder / "file").chmod(0)
    if os.access(made.folder / "file", os.R_OK):
        pytest.skip("root reads everything")
    assert "not allowed to read it; nothing was stored" in refuses_capture(made, "vm1", "file")


def test_orders_that_contradict_themselves(made: Place):
    (made.folder / "more").mkdir()
    (made.folder / "more" / "file").touch()
    said = refuses_capture(made, "vm1", "file", "more/file", code=2)
    assert "file and more/file would both be file" in said
    assert "NAME=PATH" in said
    assert "at least one file" in refuses_capture(made, "vm1", code=2)
    assert "no file none to drop" in refuses_capture(made, "vm1", "--drop", "none", code=2)
    said = refuses_capture(made, "vm1", "file", "--drop", "file", code=2)
    assert "captured or dropped, not both" in said


def test_times_that_go_backwards(made: Place):
    said = refuses_capture(made, "vm1", "file", "--at", "2026-05-02T10:00", code=2)
    assert "expected a time after its newest instant, 2026-05-02T10:00:00.000000000Z" in said
    said = refuses_capture(made, "vm1", "file", "--at", "2200-01-01", code=2)
    assert "not after now" in said
    for at in ("latest", "-5m", "noon"):
        assert f"--at {at}: " in refuses_capture(made, "vm1", "file", f"--at={at}", code=2)


@pytest.mark.parametrize(
    "name", ["", ".hidden", "@snaps", "a/b", "line\nfeed", "\x1b[31m", "n" * 256, "bytes\udcff"]
)
def test_names_that_no_machine_can_have(made: Place, name: str):
    assert "not usable as a machine's name" in refuses_capture(made, name, "file", code=2)


def test_names_that_no_file_can_have(made: Place):
    for name in ("line\nfeed", "bytes\udcff"):
        odd = made.folder / name
        odd.write_bytes(b"odd")
        said = refuses_capture(made, "vm1", odd, code=2)
        assert "not usable as a file's name" in said
        made.run("-r", "repo", "capture", "vm1", f"plain={odd}")
        assert made.run("-r", "repo", "cat", "vm1/latest/plain").out == "odd"


def test_odd_names_that_are_text_work_everywhere(made: Place):
    name = "vm [bold]ü=\"x\" 'é'"
    (made.folder / name).write_bytes(b"odd")
    made.run("-r", "repo", "capture", name, name)
    assert name in made.run("-r", "repo", "log").out
    assert made.run("-r", "repo", "ls", f"{name}/latest").out == f"{name}\n"
    assert made.run("-r", "repo", "cat", f"{name}/latest/{name}").out == "odd"
    made.run("-r", "repo", "restore", f"{name}/latest/{name}", "copy")
    assert (made.folder / "copy").read_bytes() == b"odd"


def test_a_full_disk_under_the_repository(made: Place):
    with small_disk(made.folder / "small", "size=300k") as small:
        made.run("-r", small / "repo", "init")
        (made.folder / "large").write_bytes(os.urandom(1 << 20))
        said = made.refused("-r", small / "repo", "capture", "vm1", "large")
        assert "no space left on device; free space there" in said
        assert made.run("-r", small / "repo", "log").out == ""
        assert not [path for path in small.rglob(".*") if path.is_file()]
        made.run("-r", small / "repo", "capture", "vm1", "file")
        assert made.run("-r", small / "repo", "cat", "vm1/latest/file").out == "content"
        made.run("-r", small / "repo", "check", "--deep")


def test_a_read_only_disk_under_the_repository(made: Place):
    with small_disk(made.folder / "small", "size=10m") as small:
        made.run("-r", small / "repo", "init")
        made.run("-r", small / "repo", "capture", "vm1", "file")
        subprocess.run(["mount", "-o", "remount,ro", small], check=True, timeout=30)
        assert "read-only" in made.refused("-r", small / "repo", "capture", "vm1", "file")
        assert "read-only" in made.refused("-r", small / "other", "init")
        assert made.run("-r", small / "repo", "cat", "vm1/latest/file").out == "content"
        assert "vm1" in made.run("-r", small / "repo", "log").out
        made.run("-r", small / "repo", "check", "--deep")


def test_a_cache_that_cannot_be_written(made: Place):
    with small_disk(made.folder / "small", "size=10m,ro") as small:
        said = made.refused("-r", "repo", "--cache", small / "cache", "ls")
        assert "read-only" in said.lower()
        assert "--cache DIR" in said


# Disks that are damaged or unknown


def test_a_disk_cut_short_is_refused_where_it_is_decoded_and_nowhere_else(
    made: Place, world: World
):
    content = world.disk.read_bytes()
    (made.folder / "cut.vhdx").write_bytes(content[: len(content) // 2])
    made.run("-r", "repo", "capture", "vm1", "cut.vhdx")
    said = made.refused("-r", "repo", "cat", "vm1/latest/cut.raw", code=5)
    assert said.startswith("vm1/latest/cut.raw: ")
    assert "cut short" in said
    said = made.refused("-r", "repo", "restore", "vm1/latest/cut.raw", "out", code=5)
    assert "cut short" in said
    assert not list(made.folder.glob("*out*"))
    assert not list(made.folder.glob(".*.timefs"))
    made.run("-r", "repo", "restore", "vm1/latest/cut.vhdx", "out")
    assert (made.folder / "out").read_bytes() == content[: len(content) // 2]
    assert made.run("-r", "repo", "ls", "vm1/latest/disk").out.split() == ["Data", "docs", "sql"]


def test_an_absurd_block_table(made: Place, world: World):
    content = bytearray(world.disk.read_bytes())
    entry = content.index(BLOCK_TABLE.bytes_le)
    table = int.from_bytes(content[entry + 16 : entry + 24], "little")
    content[table : table + 8] = (0xFFFFF << 44 | 6).to_bytes(8, "little")
    (made.folder / "absurd.vhdx").write_bytes(content)
    made.run("-r", "repo", "capture", "vm1", "absurd.vhdx")
    for path in ("vm1/latest/absurd", "vm1/latest/absurd.d"):
        said = made.refused("-r", "repo", "ls", path, code=5)
        assert said.startswith(f"{path}: VHDX block 0: ")


def test_a_format_that_is_not_decoded(made: Place):
    (made.folder / "disk.luks").write_bytes(b"LUKS\xba\xbe" + bytes(1 << 20))
    made.run("-r", "repo", "capture", "vm1", "disk.luks")
    assert made.run("-r", "repo", "ls", "vm1/latest/disk.luks.d").out == "p0.unsupported\n"
    reason = made.run("-r", "repo", "cat", "vm1/latest/disk.luks.d/p0.unsupported").out
    assert reason.count("\n") == 1
    assert "LUKS" in reason
    assert made.run("-r", "repo", "cat", "vm1/latest/disk.luks").out.startswith("LUKS")


# Standard output


def test_a_reader_that_has_enough_is_no_error(world: World):
    command = f"'{PROGRAM}' -r repo cat {DISK} | head -c 8"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=world.place.folder,
        env=world.place.environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == b"vhdxfile"
    assert done.stderr == b""


@pytest.mark.parametrize("command", ["log", f"ls {DAY}", f"cat {DISK}", "--help", "ls --help"])
def test_an_output_that_cannot_be_written_is_said(world: World, command: str):
    for end, words in ((">&-", "bad file descriptor"), (">/dev/full", "no space left")):
        done = subprocess.run(
            ["sh", "-c", f"'{PROGRAM}' -r repo {command} {end}"],
            cwd=world.place.folder,
            env=world.place.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 1
        assert done.stderr.startswith(f"timefs: standard output: {words}")
        assert done.stderr.count("\n") == 1


def test_a_capture_without_any_stream_is_an_instant_all_the_same(made: Place):
    subprocess.run(
        ["sh", "-c", f"'{PROGRAM}' -r repo capture vm1 file <&- >&- 2>&-"],
        cwd=made.folder,
        env=made.environment,
        timeout=60,
        check=False,
    )
    assert made.run("-r", "repo", "cat", "vm1/latest/file").out == "content"
    made.run("-r", "repo", "check", "--deep")


# Mounting


@pytest.fixture
def point(made: Place, fuse: None) -> Generator[Path]:
    """A folder to mount at, free again whatever happens."""
    folder = made.folder / "point"
    folder.mkdir()
    yield folder
    if made.run("unmount", folder, code=None).code == 4:
        subprocess.run(["umount", "-l", folder], check=False, timeout=30)


def test_mount_points_that_are_refused(made: Place, point: Path):
    (made.folder / "repo" / "inside").mkdir()
    refused = {
        "none": ("run mkdir first", 1),
        "file": ("expected a folder, got a file", 1),
        "repo": ("apart from the repository", 2),
        "repo/inside": ("apart from the repository", 2),
        ".": ("apart from the repository", 2),
    }
    for where, (words, code) in refused.items():
        for more in ([], ["--foreground"]):
            said = made.refused("-r", "repo", "mount", where, *more, code=code)
            assert said.startswith(str(made.folder / where))
            assert words in said
    made.refused("-r", "nowhere", "mount", "point", code=10)
    assert not point.is_mount()


def test_mounting_twice_unmounting_twice_and_unmounting_what_is_in_use(made: Place, point: Path):
    made.run("-r", "repo", "mount", "point")
    assert "mounted there already" in made.refused("-r", "repo", "mount", "point", code=4)
    held = os.open(point / DISK, os.O_RDONLY)
    try:
        assert "in use" in made.refused("unmount", "point", code=4)
        assert os.read(held, 8) == b"vhdxfile"
    finally:
        os.close(held)
    made.run("unmount", "point")
    assert "nothing is mounted there" in made.refused("unmount", "point")
    assert "nothing is mounted there" in made.refused("unmount", "none")
    assert "expected a mount of timefs, got one of proc" in made.refused("unmount", "/proc", code=2)


def test_a_dead_mount_is_named_and_can_be_taken_away(made: Place, point: Path):
    server = subprocess.Popen(
        [PROGRAM, "-r", "repo", "mount", "--foreground", "point"],
        cwd=made.folder,
        env=made.environment,
    )
    while not point.is_mount():
        assert server.poll() is None
    server.send_signal(signal.SIGKILL)
    server.wait(30)
    assert "server has died" in made.refused("-r", "repo", "mount", "point", code=4)
    made.run("unmount", "point")
    made.run("-r", "repo", "mount", "point")
    assert (point / DAY / "disk" / "docs" / "report.txt").read_text() == "Report 1\n" * 300
    made.run("unmount", "point")
