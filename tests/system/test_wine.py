"""Windows' own file functions, by Wine, on what the share serves as a drive letter.

Needs `setup/prepare setup/apt-wine` (1.2 GB) and is passed over without. It tests the functions of
Windows, not SMB: Wine goes to the mount. What Wine itself does not do cannot be seen so: it keeps
exclusive access among its own programs only, takes a file's attributes from its mode, does not mind
how NO_BUFFERING is aligned, and says of every file that it has no streams.
"""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.guest.ntfs.conftest import need_ntfs_3g
from tests.guest.ntfs.volume import EPOCH_TICKS, Recipe, format_volume, mounted

pytestmark = [pytest.mark.system, pytest.mark.root]
ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).with_name("windows")
COMPILER = "x86_64-w64-mingw32-gcc"
SECONDS = 120

NEWEST, FIRST = r"T:\vm1\latest\disk", r"T:\vm1\2024-05-01T10-00-30Z\disk"
ZONE = b"[ZoneTransfer]\r\nZoneId=3\r\n"
DEEP = [f"level {number} ".ljust(60, "x") for number in range(6)]
HUGE_BYTES = 5 << 30
SHARING_VIOLATION, ACCESS_DENIED = 32, 5
READ_ONLY, FOLDER, FILE = 0x1, 0x10, 0x20


def database(number: int) -> bytes:
    """What base.mdf holds at an instant: 8 KiB pages, and something that is none."""
    return random.Random(number).randbytes(200 * 8192) + b"tail"


class Listed(NamedTuple):
    """What FindFirstFile says of a name."""

    attributes: int
    size: int
    created: int
    written: int


class Known(NamedTuple):
    """What GetFileInformationByHandle says of a file."""

    volume: int
    number: int
    links: int
    attributes: int
    size: int
    created: int
    written: int


class Wine(NamedTuple):
    """A Windows of its own, on whose T: lies the mount."""

    folder: Path
    mount: Path

    def run(self, program: str, *words: str, code: int | None = 0) -> bytes:
        """What a program says; `code` is its exit code, None for any."""
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C.UTF-8",
            "WINEPREFIX": str(self.folder / "prefix"), "WINEARCH": "win64", "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml=",
        }  # fmt: skip
        command = [program, *words] if program == "wineserver" else ["wine", program, *words]
        with tempfile.TemporaryFile() as said:  # a pipe stays open as long as Wine's own programs
            done = subprocess.run(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.DEVNULL, timeout=SECONDS, check=False,
            )  # fmt: skip
            said.seek(0)
            text = said.read()
        assert code in (None, done.returncode), (done, text)
        return text

    def files(self, question: str, path: str) -> bytes:
        return self.run(str(self.folder / "files.exe"), question, path)

    def listed(self, folder: str) -> dict[str, Listed]:
        lines = [line.split(" ", 4) for line in self.files("list", folder).decode().splitlines()]
        return {
            name: Listed(int(attributes, 16), *map(int, numbers))
            for attributes, *numbers, name in lines
            if name not in (".", "..")
        }

    def known(self, path: str) -> Known:
        volume, number, links, attributes, *rest = self.files("info", path).decode().split()
        numbers = int(number), int(links), int(attributes, 16)
        return Known(int(volume, 16), *numbers, *map(int, rest))

    def attached(self, path: str) -> tuple[dict[str, str], str]:
        """What attaching a file came to, and the digest of what was read."""
        copy = self.folder / "copy"
        letter = "Z:" + str(copy).replace("/", "\\")
        said = self.run(str(self.folder / "attach.exe"), path, letter).decode()
        steps = dict(line.split(" ", 1) for line in said.splitlines())
        return steps, hashlib.sha256(copy.read_bytes()).hexdigest()

    def on_linux(self, path: str) -> Path:
        return self.mount.joinpath(*path.removeprefix("T:\\").split("\\"))


def fill(disk: Path, number: int) -> None:
    with mounted(disk, "rw") as root:
        (root / "base.mdf").write_bytes(database(number))
        if number:
            return
        docs = root / "docs"
        docs.mkdir()
        for name in ("a:b", "CON", "trailing dot.", "question?", "Makefile", "makefile", "ü"):
            (docs / name).write_bytes(name.encode())
        (docs / "Report.txt").write_bytes(b"report" * 1000)
        os.utime(docs / "Report.txt", ns=(0, 1_600_000_000_123_456_700))
        os.setxattr(docs / "Report.txt", "user.Zone.Identifier", ZONE)
        (root / "again.txt").hardlink_to(docs / "Report.txt")
        with (root / "huge.bin").open("wb") as huge:
            huge.truncate(HUGE_BYTES)
        deep = root.joinpath(*DEEP)
        deep.mkdir(parents=True)
        (deep / "deep.txt").write_bytes(b"far down")


def captured(folder: Path) -> None:
    """Two instants, an hour apart."""
    disk = folder / "disk.img"
    format_volume(disk, Recipe(size=32 << 20))
    timefs(folder, "init")
    for number, time in enumerate(("2024-05-01T10:00:00Z", "2024-05-01T11:00:00Z")):
        fill(disk, number)
        timefs(folder, "capture", "vm1", str(disk), "--at", time)


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "timefs.cli.main", "-r", str(folder / "repo"), *words]


def timefs(folder: Path, *words: str) -> None:
    subprocess.run(
        command(folder, *words), cwd=ROOT, env={**os.environ, "XDG_CACHE_HOME": str(folder)},
        stdout=subprocess.DEVNULL, timeout=SECONDS, check=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wine() -> Generator[Wine]:
    missing = [tool for tool in ("wine", "wineserver", COMPILER) if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}: setup/prepare setup/apt-wine")
    need_ntfs_3g()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        captured(folder)
        state = folder / "state"
        share = command(folder, "share", "--mount-only", "--acl", "share", "--state", str(state))
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder)}
        with subprocess.Popen(
            share, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline().startswith("sharing")
                running = Wine(folder, state / "mount")
                try:
                    install(running)
                    yield running
                finally:
                    running.run("wineserver", "--kill", code=None)  # it may have ended
            finally:
                process.terminate()


def install(wine: Wine) -> None:
    for program in ("attach", "files"):
        subprocess.run(
            [COMPILER, "-municode", "-O2", "-Wall", "-Wextra", "-Werror", SOURCES / f"{program}.c",
             "-o", wine.folder / f"{program}.exe"],
            timeout=SECONDS, check=True,
        )  # fmt: skip
    wine.run("wineboot", "--init")
    (wine.folder / "prefix" / "dosdevices" / "t:").symlink_to(wine.mount)


@pytest.mark.parametrize(("disk", "number"), [(FIRST, 0), (NEWEST, 1)])
def test_a_file_is_attached_as_a_database_is_and_reads_as_it_was(
    wine: Wine, disk: str, number: int
):
    steps, digest = wine.attached(rf"{disk}\base.mdf")
    assert digest == hashlib.sha256(database(number)).hexdigest()
    assert steps.pop("size") == str(len(database(number)))
    assert steps.pop("second") == f"error {SHARING_VIOLATION}"
    for step in ("write", "delete", "rename", "create"):
        assert steps.pop(step) == f"error {ACCESS_DENIED}"
    assert steps == dict.fromkeys(
        ("exclusive", "copy", "scatter", "lock", "unlock", "after", "map"), "ok"
    )


def test_a_whole_disk_is_attached_too(wine: Wine):
    steps, digest = wine.attached(r"T:\vm1\latest\disk.img")
    assert steps["exclusive"] == steps["scatter"] == steps["map"] == "ok"
    assert digest == hashlib.sha256((wine.folder / "disk.img").read_bytes()).hexdigest()


def test_a_folder_lists_every_name_as_windows_can_take_it(wine: Wine):
    listed = wine.listed(rf"{NEWEST}\docs")
    assert set(listed) == {
        "a\uf022b", "CON\uf02a", "trailing dot\uf029", "question\uf025", "Makefile", "makefile (2)",
        "ü", "Report.txt",
    }  # fmt: skip
    shown = wine.on_linux(rf"{NEWEST}\docs\Report.txt").stat()
    written = EPOCH_TICKS + shown.st_mtime_ns // 100
    assert listed["Report.txt"].written == written == EPOCH_TICKS + 16_000_000_001_234_567
    assert listed["Report.txt"].size == 6000
    assert {each.attributes for each in listed.values()} == {READ_ONLY | FILE}
    assert wine.listed(NEWEST)["docs"].attributes & FOLDER


def test_every_listed_name_opens_and_so_does_another_case(wine: Wine):
    for name, content in {
        "a\uf022b": b"a:b", "CON\uf02a": b"CON", "trailing dot\uf029": b"trailing dot.",
        "question\uf025": b"question?", "ü": "ü".encode(), "Ü": "ü".encode(),
        "REPORT.TXT": b"report" * 1000,
    }.items():  # fmt: skip
        assert wine.files("read", rf"{NEWEST}\docs\{name}") == content
    alike = {wine.files("read", rf"{NEWEST}\docs\{name}") for name in ("Makefile", "makefile (2)")}
    assert alike == {b"Makefile", b"makefile"}


def test_times_are_folders_and_any_second_opens(wine: Wine):
    assert set(wine.listed(r"T:\vm1")) == {
        "latest", "2024-05-01T10-00-00Z", "2024-05-01T11-00-00Z",
    }  # fmt: skip
    assert wine.known(rf"{FIRST}\base.mdf").size == len(database(0))


def test_an_open_file_is_known_by_a_number_that_stays(wine: Wine):
    report = rf"{NEWEST}\docs\Report.txt"
    known = wine.known(report)
    shown = wine.on_linux(report).stat()
    assert known.number == shown.st_ino
    assert known == wine.known(report)
    assert known.size == 6000
    assert known.written == EPOCH_TICKS + shown.st_mtime_ns // 100
    assert known.links == shown.st_nlink == 2
    assert wine.known(rf"{NEWEST}\again.txt").number == known.number
    assert wine.known(rf"{NEWEST}\base.mdf").number != known.number


def test_a_file_over_four_gigabytes_has_its_size(wine: Wine):
    assert wine.known(rf"{NEWEST}\huge.bin").size == HUGE_BYTES
    assert wine.listed(NEWEST)["huge.bin"].size == HUGE_BYTES


def test_a_stream_opens_by_its_name(wine: Wine):
    assert wine.files("read", rf"{NEWEST}\docs\Report.txt:Zone.Identifier") == ZONE


def test_a_path_longer_than_260_characters_opens(wine: Wine):
    deep = "\\".join([NEWEST, *DEEP, "deep.txt"])
    assert len(deep) > 260
    assert wine.files("read", "\\\\?\\" + deep) == b"far down"
    assert list(wine.listed("\\\\?\\" + deep.rpartition("\\")[0])) == ["deep.txt"]
