# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH115, PTH116, PTH118, PTH123, PTH208
# The system calls themselves are what is tested here.
"""What every adapter of the file-system core must do, shown over a real mount.

An adapter's test file subclasses `FileSystemConformance` and gives `show`. Clients run in this
process with system calls that release the interpreter lock, or in processes of their own.
"""

import ctypes
import errno
import os
import random
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

import pytest

from store.errors import CorruptError, DamagedError
from tests.timetree.memory_tree import (
    TIME_NS,
    FailingFolder,
    FailingImage,
    FailingNode,
    MemoryFile,
    MemoryFolder,
    MemoryLink,
    SparseImage,
)
from timefs.tree import Folder

MANY = 10_000
BIG = random.Random(7).randbytes(3 * (1 << 20) + 12_345)
SPARSE_SIZE = 5 << 20
SPARSE_RUNS = {1 << 20: b"first" * 1000, (4 << 20) + 3: b"second"}
DAMAGED = DamagedError("pack 7: checksum differs")


def live_folder() -> MemoryFolder:
    return MemoryFolder(b"live", {b"old": MemoryFile(b"old", b"old bytes")}, frozen=False)


def content(live: MemoryFolder) -> MemoryFolder:
    many = {b"file-%05d" % n: MemoryFile(b"many-%d" % n, b"%d" % n) for n in range(MANY)}
    nested = MemoryFolder(b"nested", {b"leaf": MemoryFile(b"leaf", b"deep")})
    odd = b"a b\nc\xff\xfe" + "ü".encode()
    return MemoryFolder(
        b"root",
        {
            b"big": MemoryFile(b"big", BIG),
            b"same-as-big": MemoryFile(b"big", BIG),
            b"empty": MemoryFile(b"empty", b""),
            b"sparse": MemoryFile(b"sparse", SparseImage(SPARSE_SIZE, SPARSE_RUNS)),
            b"marked": MemoryFile(b"marked", b"x", xattrs={b"user.timefs.actual": b"then"}),
            b"link": MemoryLink(b"link", b"nested/leaf"),
            b"nested": nested,
            b"many": MemoryFolder(b"many", many),
            b"live": live,
            odd: MemoryFile(b"odd", b"odd"),
            b"n" * 300: MemoryFile(b"long", b"long"),
            b"damaged": MemoryFile(b"damaged", FailingImage(1 << 20, 1 << 19, DAMAGED)),
            b"faulty": MemoryFile(b"faulty", FailingImage(1 << 20, 0, ZeroDivisionError("oops"))),
            b"holed": MemoryFolder(
                b"holed",
                {
                    b"bad": FailingNode(b"bad", CorruptError("record 5: bad")),
                    b"good": MemoryFile(b"good", b"good"),
                },
            ),
            b"broken": FailingFolder(
                b"broken", {b"seen": MemoryFile(b"seen", b"s")}, CorruptError("index: bad node")
            ),
        },
        frozen=False,
    )


def number(call: Callable[[], object]) -> int:
    """The error number that a call fails with."""
    with pytest.raises(OSError) as caught:
        call()
    assert caught.value.errno is not None
    return caught.value.errno


@pytest.mark.system
class FileSystemConformance:
    """Subclass with the name Test… and give `show`."""

    tells_holes: ClassVar[bool] = True
    """Whether the adapter's interface has a way to ask for holes."""
    knows_open_files_without_names: ClassVar[bool] = True
    """Whether it asks for a file by more than its path."""

    @classmethod
    def show(cls, root: Folder, mountpoint: Path) -> AbstractContextManager[object]:
        """Mount `root` at a folder as long as the context lasts."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def live(cls) -> MemoryFolder:
        return live_folder()

    @pytest.fixture(scope="class")
    @classmethod
    def top(
        cls, tmp_path_factory: pytest.TempPathFactory, live: MemoryFolder
    ) -> Generator[Path, None, None]:
        mountpoint = tmp_path_factory.mktemp("mount")
        with cls.show(content(live), mountpoint):
            yield mountpoint

    def test_lookup_and_stat_show_the_nodes_attributes(self, top: Path):
        shown = os.stat(top / "big")
        assert stat.S_ISREG(shown.st_mode)
        assert shown.st_mode & 0o777 == 0o444
        assert shown.st_size == len(BIG)
        assert shown.st_blocks == (len(BIG) + 511) // 512
        assert shown.st_mtime_ns == TIME_NS
        assert shown.st_atime_ns == TIME_NS + 1
        assert shown.st_ctime_ns == TIME_NS + 2
        assert stat.S_ISDIR(os.stat(top / "nested").st_mode)

    def test_equal_identity_is_one_inode_and_other_identity_another(self, top: Path):
        inode = os.stat(top / "big").st_ino
        assert os.stat(top / "same-as-big").st_ino == inode
        assert os.stat(top / "empty").st_ino != inode

    def test_a_listing_of_ten_thousand_names_is_whole(self, top: Path):
        for _ in range(2):
            names = os.listdir(top / "many")
            assert sorted(names) == [f"file-{n:05}" for n in range(MANY)]

    def test_a_listing_tells_types(self, top: Path):
        with os.scandir(top) as entries:
            types = {e.name: (e.is_dir(follow_symlinks=False), e.is_symlink()) for e in entries}
        assert types["nested"] == (True, False)
        assert types["link"] == (False, True)
        assert types["big"] == (False, False)

    def test_a_listing_can_be_continued_and_restarted(self, top: Path):
        """With getdents through libc, which Python's scandir does not let us rewind."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.opendir.restype = libc.telldir.restype = ctypes.c_long
        libc.readdir.restype = ctypes.c_void_p
        libc.telldir.argtypes = libc.readdir.argtypes = [ctypes.c_void_p]
        libc.rewinddir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
        libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
        stream = ctypes.c_void_p(libc.opendir(bytes(top / "many")))

        def following() -> bytes:
            record = libc.readdir(stream)
            return ctypes.string_at(record + 19) if record else b""

        def real() -> bytes:
            name = following()
            while name in (b".", b".."):
                name = following()
            return name

        try:
            first = real()
            for _ in range(4000):
                real()
            mark = libc.telldir(stream)
            expected = [real() for _ in range(50)]
            for _ in range(3000):
                real()
            libc.seekdir(stream, mark)
            assert [real() for _ in range(50)] == expected
            libc.rewinddir(stream)
            assert real() == first
        finally:
            libc.closedir(stream)

    def test_names_are_bytes(self, top: Path):
        odd = b"a b\nc\xff\xfe" + "ü".encode()
        assert odd in os.listdir(bytes(top))
        with open(os.path.join(bytes(top), odd), "rb") as file:
            assert file.read() == b"odd"

    def test_cat(self, top: Path):
        done = subprocess.run(
            ["cat", top / "big", top / "empty", top / "nested/leaf"],
            capture_output=True,
            timeout=30,
            check=True,
        )
        assert done.stdout == BIG + b"deep"

    def test_random_reads_are_the_truth(self, top: Path):
        chance = random.Random(1)
        file = os.open(top / "big", os.O_RDONLY)
        try:
            for _ in range(300):
                offset = chance.randrange(len(BIG) + 5000)
                length = chance.choice([1, 511, 4096, 70_000, 2 << 20])
                assert os.pread(file, length, offset) == BIG[offset : offset + length]
        finally:
            os.close(file)

    def test_concurrent_readers(self, top: Path):
        def reads(seed: int) -> bool:
            chance = random.Random(seed)
            file = os.open(top / "big", os.O_RDONLY)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                return all(
                    os.pread(file, 10_000, offset) == BIG[offset : offset + 10_000]
                    for offset in (chance.randrange(len(BIG)) for _ in range(200))
                )
            finally:
                os.close(file)

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(reads, range(4)))

    def test_mmap(self, top: Path):
        code = (
            "import mmap,sys,hashlib;f=open(sys.argv[1],'rb');"
            "m=mmap.mmap(f.fileno(),0,access=mmap.ACCESS_READ);sys.stdout.buffer.write(m[:])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, top / "big"], capture_output=True, timeout=30, check=True
        )
        assert done.stdout == BIG

    def test_sparse_files_tell_their_holes(self, top: Path):
        if not self.tells_holes:
            pytest.skip("the binding has no such request")
        file = os.open(top / "sparse", os.O_RDONLY)
        try:
            seek = [
                (os.lseek(file, 0, os.SEEK_HOLE), 0),
                (os.lseek(file, 0, os.SEEK_DATA), 1 << 20),
                (os.lseek(file, (1 << 20) + 10, os.SEEK_DATA), (1 << 20) + 10),
                (os.lseek(file, 1 << 20, os.SEEK_HOLE), (1 << 20) + 5000),
                (os.lseek(file, (1 << 20) + 5000, os.SEEK_DATA), (4 << 20) + 3),
                (os.lseek(file, (4 << 20) + 3, os.SEEK_HOLE), (4 << 20) + 9),
            ]
            assert [got for got, _ in seek] == [expected for _, expected in seek]
            after_last = (4 << 20) + 9
            assert number(lambda: os.lseek(file, after_last, os.SEEK_DATA)) == errno.ENXIO
            assert number(lambda: os.lseek(file, SPARSE_SIZE, os.SEEK_HOLE)) == errno.ENXIO
            assert os.pread(file, 10, (1 << 20) - 3) == b"\0\0\0firstfi"
        finally:
            os.close(file)
        whole = os.open(top / "big", os.O_RDONLY)
        try:
            assert os.lseek(whole, 0, os.SEEK_HOLE) == len(BIG)
        finally:
            os.close(whole)

    def test_extended_attributes(self, top: Path):
        assert os.listxattr(top / "marked") == ["user.timefs.actual"]
        assert os.getxattr(top / "marked", "user.timefs.actual") == b"then"
        assert number(lambda: os.getxattr(top / "marked", "user.none")) == errno.ENODATA
        assert os.listxattr(top / "big") == []

    def test_a_symbolic_link_points(self, top: Path):
        assert os.readlink(top / "link") == "nested/leaf"
        assert (top / "link").read_bytes() == b"deep"

    def test_absence_is_enoent(self, top: Path):
        assert number(lambda: os.stat(top / "nothing")) == errno.ENOENT
        assert number(lambda: os.stat(top / "nested/nothing")) == errno.ENOENT

    def test_damage_is_eio_and_what_is_whole_stays_readable(self, top: Path):
        file = os.open(top / "damaged", os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
            assert os.pread(file, 4096, 0) == b"g" * 4096
            assert number(lambda: os.pread(file, 4096, 1 << 19)) == errno.EIO
            assert os.pread(file, 4096, 8192) == b"g" * 4096
        finally:
            os.close(file)

    def test_a_damaged_folder_is_eio_never_absence_or_a_shorter_listing(self, top: Path):
        assert number(lambda: os.stat(top / "broken/other")) == errno.EIO
        assert number(lambda: os.listdir(top / "broken")) == errno.EIO
        assert (top / "broken/seen").read_bytes() == b"s"

    def test_a_damaged_node_does_not_hide_its_neighbours(self, top: Path):
        assert sorted(os.listdir(top / "holed")) == ["bad", "good"]
        assert number(lambda: os.stat(top / "holed/bad")) == errno.EIO
        assert (top / "holed/good").read_bytes() == b"good"

    def test_a_fault_of_ours_is_eio_and_the_mount_lives(self, top: Path):
        for _ in range(8):
            assert number((top / "faulty").read_bytes) == errno.EIO
        assert (top / "nested/leaf").read_bytes() == b"deep"

    def test_statfs(self, top: Path):
        shown = os.statvfs(top)
        assert shown.f_flag & os.ST_RDONLY
        assert shown.f_flag & os.ST_NOSUID
        assert shown.f_namemax >= 765
        assert shown.f_bavail == 0

    def test_names_too_long(self, top: Path):
        assert number(lambda: os.stat(top / ("n" * 2000))) == errno.ENAMETOOLONG
        assert (top / ("n" * 300)).read_bytes() == b"long"

    def test_writing_is_refused(self, top: Path):
        assert number(lambda: os.open(top / "big", os.O_WRONLY)) == errno.EROFS
        assert number(lambda: os.open(top / "new", os.O_CREAT | os.O_WRONLY)) == errno.EROFS
        assert number(lambda: os.mkdir(top / "new")) == errno.EROFS
        assert number(lambda: os.unlink(top / "big")) == errno.EROFS
        assert number(lambda: os.rename(top / "big", top / "small")) == errno.EROFS
        assert number(lambda: os.chmod(top / "big", 0o777)) == errno.EROFS
        assert number(lambda: os.truncate(top / "big", 0)) == errno.EROFS
        assert number(lambda: os.setxattr(top / "big", "user.x", b"y")) == errno.EROFS

    def test_an_open_file_survives_while_the_tree_changes(self, top: Path, live: MemoryFolder):
        file = os.open(top / "live/old", os.O_RDONLY)
        folder = os.open(top / "live", os.O_RDONLY)
        try:
            live.nodes[b"new"] = MemoryFile(b"new", b"new bytes")
            del live.nodes[b"old"]
            seen = threading.Event()
            for _ in range(40):
                if os.listdir(top / "live") == ["new"] and not (top / "live/old").exists():
                    break
                seen.wait(0.05)
            assert not (top / "live/old").exists()
            assert (top / "live/new").read_bytes() == b"new bytes"
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(file, 100, 0) == b"old bytes"
            if self.knows_open_files_without_names:
                assert os.fstat(file).st_size == len(b"old bytes")
            assert os.listdir(folder) == ["new"]
        finally:
            os.close(folder)
            os.close(file)

    def test_leaving_a_busy_mount_ends_cleanly(self, tmp_path: Path):
        with self.show(content(live_folder()), tmp_path):
            file = os.open(tmp_path / "big", os.O_RDONLY)
        try:
            assert not os.path.ismount(tmp_path)
            assert os.listdir(tmp_path) == []
        finally:
            os.close(file)
