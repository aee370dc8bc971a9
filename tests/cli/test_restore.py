"""Restoring: whole or not at all, nowhere but where it was told to, and what a guest cannot do."""

import os
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.errors import DamagedError, ExistsError, FullError, NotFoundError, UsageError
from store.image import BytesImage, Extent
from tests.cli.conftest import World
from tests.cli.guest_disk import sha256
from tests.cli.program import PROGRAM, Place
from tests.cli.restoring import everything, file, folder, restored
from tests.timetree.memory_tree import TIME_NS, MemoryLink, SparseImage

DAY = "vm1/2026-05-01T10:00"
DISK = f"{DAY}/disk.vhdx"


class BrokenImage(BytesImage):
    """Bytes that the store has lost."""

    def read_into(self, offset: int, buffer: memoryview) -> int:
        raise DamagedError("pack 7: expected checksum 1, got 2")


class TruthfulOnce(BytesImage):
    """Bytes that are others when they are asked for again, as from a disk that lies."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.asked = 0

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self.asked += 1
        if self.asked > 1:
            length = min(length, self.size - 1)
        return super().extents(offset, length)


# Where to


def test_into_a_folder_or_as_what_is_named(tmp_path: Path):
    done, _ = restored(file(b"content"), tmp_path)
    assert done.target == tmp_path / "name"
    done, _ = restored(file(b"content"), tmp_path / "other")
    assert done.target == tmp_path / "other"
    assert done.files == 1
    assert everything(tmp_path) == {"name", "other"}
    assert (tmp_path / "other").read_bytes() == b"content"


def test_nothing_is_replaced_unless_forced(tmp_path: Path):
    (tmp_path / "name").write_bytes(b"mine")
    with pytest.raises(ExistsError, match="--force"):
        restored(file(b"content"), tmp_path)
    assert (tmp_path / "name").read_bytes() == b"mine"
    restored(file(b"content"), tmp_path, force=True)
    assert (tmp_path / "name").read_bytes() == b"content"
    assert everything(tmp_path) == {"name"}


def test_a_folder_is_merged_and_each_file_in_it_is_held_to_the_same(tmp_path: Path):
    tree = folder(b"root", {b"a": file(b"new a", b"a"), b"b": file(b"new b", b"b")})
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "a").write_bytes(b"old a")
    _, errors = restored(tree, tmp_path)
    assert [type(error) for error in errors] == [ExistsError]
    assert (tmp_path / "name" / "a").read_bytes() == b"old a"
    assert (tmp_path / "name" / "b").read_bytes() == b"new b"
    assert restored(tree, tmp_path, force=True).errors == []
    assert (tmp_path / "name" / "a").read_bytes() == b"new a"


def test_a_folder_never_takes_the_place_of_a_file_nor_a_file_that_of_a_folder(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "into" / "name").mkdir(parents=True)
    with pytest.raises((ExistsError, NotFoundError)):
        restored(folder(b"root", {}), tmp_path / "file", force=True)
    with pytest.raises(ExistsError, match="a folder is there"):
        restored(file(b"content"), tmp_path / "into", force=True)
    assert everything(tmp_path) == {"file", "into", "into/name"}


def test_a_device_or_pipe_is_not_replaced_by_a_file(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="timefs cat"):
        restored(file(b"content"), tmp_path / "pipe", force=True)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_place_that_is_not_there(tmp_path: Path):
    with pytest.raises(NotFoundError, match="expected a folder to restore into"):
        restored(file(b"content"), tmp_path / "none" / "name")


# Whole or not at all


def test_damage_leaves_nothing_behind_and_the_rest_is_restored(tmp_path: Path):
    tree = folder(
        b"root",
        {
            b"good": file(b"good", b"good"),
            b"broken": file(BrokenImage(b"12345678"), b"broken"),
            b"last": folder(b"last", {b"file": file(b"last", b"last file")}),
        },
    )
    done, errors = restored(tree, tmp_path)
    assert everything(tmp_path) == {"name", "name/good", "name/last", "name/last/file"}
    (error,) = errors
    assert str(error).startswith(f"{tmp_path}/name/broken: pack 7: ")
    assert (done.files, done.folders) == (2, 2)


def test_a_single_damaged_file_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(DamagedError, match=r"name: pack 7: expected checksum 1"):
        restored(file(BrokenImage(b"12345678")), tmp_path)
    assert everything(tmp_path) == set()


def test_what_does_not_read_back_is_not_put_in_place(tmp_path: Path):
    with pytest.raises(DamagedError, match="does not read back; nothing was put in place"):
        restored(file(TruthfulOnce(os.urandom(9000))), tmp_path)
    assert everything(tmp_path) == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
@pytest.mark.system
def test_a_full_disk_ends_the_restore_and_leaves_only_whole_files(tmp_path: Path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    subprocess.run(mount, check=True, timeout=30)
    try:
        content = os.urandom(300_000)
        nodes = {b"%d" % n: file(content, b"%d" % n) for n in range(6)}
        with pytest.raises(FullError, match=r"no space left.*; restored until then: 3 files"):
            restored(folder(b"root", nodes), tmp_path)
        assert everything(tmp_path) == {"name", "name/0", "name/1", "name/2"}
        for n in range(3):
            assert (tmp_path / "name" / str(n)).read_bytes() == content
    finally:
        subprocess.run(["umount", tmp_path], check=True, timeout=30)


# As it was


def test_times_and_holes_are_kept_and_no_set_uid_bit(tmp_path: Path):
    restored(folder(b"root", {b"f": file(b"content", b"f")}), tmp_path)
    for name in ("name", "name/f"):
        assert (tmp_path / name).stat().st_mtime_ns == TIME_NS
    mode = (tmp_path / "name" / "f").stat().st_mode
    assert not mode & (stat.S_ISUID | stat.S_ISGID)
    assert mode & stat.S_IWUSR


class Counted(SparseImage):
    """Counts how often its runs are asked for."""

    asked = 0

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self.asked += 1
        return super().extents(offset, length)


def test_a_hole_of_a_tebibyte_is_passed_over(tmp_path: Path):
    image = Counted(1 << 40, {5 << 30: b"middle", (1 << 40) - 3: b"end"})
    done, _ = restored(file(image), tmp_path)
    assert done.written_bytes == 9
    with (tmp_path / "name").open("rb") as written:
        assert os.fstat(written.fileno()).st_size == 1 << 40
        assert os.pread(written.fileno(), 8, (5 << 30) - 1) == b"\0middle\0"
        assert os.pread(written.fileno(), 5, (1 << 40) - 5) == b"\0\0end"
    assert image.asked < 200


@pytest.mark.system
def test_a_whole_disk_is_restored_sparse_with_its_time(world: World, place: Place):
    world.place.run("-r", "repo", "restore", f"{DAY}/disk.raw", place.folder / "raw")
    raw, truth = place.folder / "raw", world.disk.with_suffix(".raw")
    assert raw.stat().st_size == truth.stat().st_size
    assert raw.stat().st_blocks * 512 < raw.stat().st_size // 2
    world.place.run("-r", "repo", "restore", "vm1/latest/disk.raw", raw, "--force")
    assert sha256(raw) == sha256(truth)
    done = world.place.run("-r", "repo", "restore", "vm1/latest/disk.vhdx", place.folder)
    assert done.out.startswith(f"{place.folder}/disk.vhdx: 1 file, ")
    assert sha256(place.folder / "disk.vhdx") == sha256(world.disk)
    assert raw.stat().st_mtime == 1777716000  # 2026-05-02T10:00:00Z


@pytest.mark.system
def test_an_instant_stands_for_its_captured_files(world: World, place: Place):
    for path in (DAY, "vm1/@snaps/@GMT-2026.05.01-10.00.00"):
        out = place.folder / "out"
        record = world.place.run("-r", "repo", "restore", path, out, "--json").records()[0]
        assert (record["files"], record["failed"]) == (1, 0)
        assert everything(out) == {"disk.vhdx"}
        (out / "disk.vhdx").unlink()
        out.rmdir()
    for path in ("", "vm1", "vm1/@snaps"):
        said = world.place.refused("-r", "repo", "restore", path, place.folder, code=2)
        assert "expected MACHINE/TIME/" in said


@pytest.mark.system
def test_the_repository_is_no_place_to_restore_to(world: World):
    for target in ("repo", "repo/packs", "repo/new"):
        said = world.place.refused("-r", "repo", "restore", DISK, target, "--force", code=2)
        assert "outside the repository" in said


# What a guest cannot do


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"../../escape", b"/etc/passwd", b"\0"])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: bytes):
    (tmp_path / "deep" / "into").mkdir(parents=True)
    evil = folder(b"evil", {b"inside": file(b"x", b"inside")})
    for node in (file(b"evil", b"evil file"), evil, MemoryLink(b"evil link", b"target")):
        tree = folder(b"root", {name: node, b"good": file(b"good", b"good")})
        _, errors = restored(tree, tmp_path / "deep" / "into", force=True)
        assert len(errors) == 1
        assert everything(tmp_path) == {
            *("deep", "deep/into", "deep/into/name", "deep/into/name/good")
        }


@pytest.mark.parametrize(
    ("target", "made"),
    [
        (b"beside", True),
        (b"../top", True),
        (b"./sub/deeper", True),
        (b"../../above", False),
        (b"/etc/passwd", False),
        (b"sub/../../..", False),
        (b"sub/../beside", False),
        (b"..", True),
        (b"../..", False),
    ],
)
def test_a_link_is_made_only_if_it_stays_inside(tmp_path: Path, target: bytes, made: bool):
    tree = folder(b"root", {b"one": folder(b"one", {b"link": MemoryLink(b"link", target)})})
    _, errors = restored(tree, tmp_path)
    link = tmp_path / "name" / "one" / "link"
    assert link.is_symlink() is made
    assert len(errors) == (not made)
    if made:
        assert str(link.readlink()) == target.decode().removeprefix("./")
        assert link.resolve().is_relative_to(tmp_path / "name")


def test_nothing_is_written_through_a_link(tmp_path: Path):
    """A guest folder lists one name twice: first a link to outside, then a folder or a file."""
    outside = tmp_path / "outside"
    outside.mkdir()
    into = tmp_path / "into"
    (into / "name").mkdir(parents=True)
    (into / "name" / "twice").symlink_to(outside)
    inside = folder(b"twice", {b"planted": file(b"x", b"planted")})
    _, errors = restored(folder(b"root", {b"twice": inside}), into, force=True)
    assert len(errors) == 1
    (into / "name" / "twice").unlink()
    (into / "name" / "twice").symlink_to(outside / "victim")
    (outside / "victim").write_bytes(b"mine")
    restored(folder(b"root", {b"twice": file(b"guest")}), into, force=True)
    assert (outside / "victim").read_bytes() == b"mine"
    assert (into / "name" / "twice").read_bytes() == b"guest"
    assert everything(outside) == {"victim"}


def test_a_folder_that_contains_itself_ends(tmp_path: Path):
    tree = folder(b"root", {b"file": file(b"x", b"x")})
    tree.nodes[b"again"] = tree
    _, errors = restored(tree, tmp_path)
    assert everything(tmp_path) == {"name", "name/file"}
    assert "in two places" in str(errors[0])


def test_names_of_any_bytes_and_of_full_length(tmp_path: Path):
    names = [b"\xff\xfe", b"line\nfeed", b"n" * 255, b"-rf", b" ", "ü".encode() * 127]
    tree = folder(b"root", {name: file(name, name) for name in names})
    assert restored(tree, tmp_path).errors == []
    for name in names:
        path = os.fsencode(tmp_path) + b"/name/" + name
        assert Path(os.fsdecode(path)).read_bytes() == name


# Interrupted


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_no_debris(place: Place, number: signal.Signals):
    with (place.folder / "large").open("wb") as large:
        for _ in range(24):
            large.write(os.urandom(8 << 20))
    place.run("-r", "repo", "init")
    place.run("-r", "repo", "capture", "vm1", "large")
    (place.folder / "out").mkdir()
    process = subprocess.Popen(
        [PROGRAM, "-r", "repo", "restore", "vm1/latest/large", "out"],
        cwd=place.folder,
        env=place.environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not everything(place.folder / "out"):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("timefs: interrupted")
    assert everything(place.folder / "out") == set()
