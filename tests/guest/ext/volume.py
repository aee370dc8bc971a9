"""ext volumes as the tests need them, written by the kernel."""

import os
import random
import socket
from contextlib import suppress
from pathlib import Path

from tests.guest.kernel import kernel_mount, run

CASES = {
    "ext2-1k": ("-t ext2 -b 1024", "rw"),
    "ext2-4k-old": ("-t ext2 -b 4096 -r 0", "rw"),
    "ext3-1k": ("-t ext3 -b 1024", "rw"),
    "ext4-1k": ("-t ext4 -b 1024", "rw"),
    "ext4-2k": ("-t ext4 -b 2048 -O ^metadata_csum", "rw"),
    "ext4-4k": ("-t ext4 -b 4096 -I 256", "rw"),
    "ext4-inline": ("-t ext4 -b 4096 -O inline_data,ea_inode", "rw"),
    "ext4-inline-1k": ("-t ext4 -b 1024 -I 512 -O inline_data,ea_inode,metadata_csum_seed", "rw"),
    "ext4-bigalloc": ("-t ext4 -b 4096 -O bigalloc -C 16384", "rw"),
    "ext4-bigalloc-1k": ("-t ext4 -b 1024 -O bigalloc -C 16384", "rw"),
    "ext4-meta-groups": ("-t ext4 -b 1024 -g 1024 -O meta_bg,^resize_inode", "rw"),
    "ext4-small-inodes": ("-t ext4 -b 4096 -I 128 -O ^64bit,^flex_bg", "rw"),
    "ext4-sparse-super2": ("-t ext4 -b 1024 -g 2048 -O sparse_super2", "rw"),
    "ext4-no-file-type": (
        "-t ext4 -b 2048 -O ^filetype,^dir_index,^extent,^huge_file,^metadata_csum,^64bit",
        "rw",
    ),
}
"""Options of mke2fs and of mount."""


def make(path: Path, options: str, size: int = 48 << 20) -> None:
    with path.open("wb") as file:
        file.truncate(size)
    run("mke2fs", "-q", "-F", "-E", "lazy_itable_init=1", "-L", "Data", *options.split(), path)


def populated(path: Path, point: Path, options: str, mount: str, seed: int = 1) -> None:
    """Make a volume and let the kernel write a bit of everything into it."""
    make(path, options)
    with kernel_mount(path, point, mount):
        populate(point, random.Random(seed))


def populate(top: Path, chance: random.Random) -> None:
    _files(top, chance)
    _fragmented(top, chance)
    _folders(top)
    _links(top)
    _special(top)
    _attributes(top, chance)
    _times(top)


def _files(top: Path, chance: random.Random) -> None:
    for size in (0, 1, 59, 60, 61, 100, 160, 200, 1023, 1024, 4095, 4096, 4097, 70_000, 3_000_000):
        (top / f"size-{size}").write_bytes(chance.randbytes(size))
    with (top / "sparse").open("wb") as file:
        for place in (0, 5_000, 300_000, 5 << 20, (70 << 20) + 17):
            file.seek(place)
            file.write(chance.randbytes(3000))
        file.truncate((72 << 20) + 5)
    with (top / "allocated").open("wb") as file:
        with suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, 600_000)
        file.seek(100_000)
        file.write(chance.randbytes(5000))
    (top / "hidden-behind-hard-links").write_bytes(b"one content")
    for number in range(5):
        os.link(top / "hidden-behind-hard-links", top / f"hard-{number}")


def _fragmented(top: Path, chance: random.Random) -> None:
    """A file of very many extents: every second block of it, written from its end on."""
    block = os.statvfs(top).f_bsize
    with (top / "fragmented").open("wb") as file:
        for number in reversed(range(1500)):
            file.seek(2 * number * block)
            file.write(chance.randbytes(min(block, 1024)))
            if number % 100 == 0:
                os.fsync(file.fileno())


def _folders(top: Path) -> None:
    many = top / "many"
    many.mkdir()
    for number in range(1500):
        (many / f"{'long' * (number % 30)}-{number}").touch()
    for number in range(0, 1500, 3):
        (many / f"{'long' * (number % 30)}-{number}").unlink()
    deep = top
    for number in range(20):
        deep /= f"deep-{number}"
        deep.mkdir()
    (deep / "end").write_bytes(b"the end")
    few = top / "few"
    few.mkdir()
    for number in range(4):
        (few / str(number)).write_bytes(b"x" * number)
    for name in (b"\xff\xfe not UTF-8", b"a\nb", b"\\ ? : * |", b"-rf", b"n" * 255):
        (top / os.fsdecode(name)).write_bytes(name)


def _links(top: Path) -> None:
    folder = top / "links" / "inner"
    folder.mkdir(parents=True)
    for length in (1, 58, 59, 60, 61, 200, 1000):
        (folder / f"to-{length}").symlink_to("t" * length)
    (folder / "relative").symlink_to("../../size-1")
    (folder / "absolute").symlink_to("/size-1")


def _special(top: Path) -> None:
    for name, mode, device in (
        ("pipe", 0o010600, 0),
        ("null", 0o020666, os.makedev(1, 3)),
        ("wide", 0o060640, os.makedev(300, 70_000)),
    ):
        os.mknod(top / name, mode, device)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(top / "socket"))
    listener.close()


def _attributes(top: Path, chance: random.Random) -> None:
    small, large = top / "with-attributes", top / "with-large-attributes"
    for path in (small, large):
        path.write_bytes(chance.randbytes(500))
    for name, value in (("user.a", b"1"), ("user.empty", b""), ("trusted.t", b"secret")):
        os.setxattr(small, name, value)
    os.setxattr(small, "security.capability", bytes.fromhex("0100000200040000") + bytes(12))
    for number in range(1, 7):
        os.setxattr(large, f"user.{'n' * number}", chance.randbytes(110))
    with suppress(OSError):  # only where a value may have an inode of its own
        os.setxattr(large, "user.own-inode", chance.randbytes(20_000))
    listed = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + permissions.to_bytes(2, "little") + number.to_bytes(4, "little")
        for tag, permissions, number in (
            *((1, 6, 0xFFFFFFFF), (2, 4, 1000), (4, 4, 0xFFFFFFFF)),
            *((8, 2, 1001), (16, 6, 0xFFFFFFFF), (32, 0, 0xFFFFFFFF)),
        )
    )
    os.setxattr(small, "system.posix_acl_access", listed)
    os.setxattr(top / "few", "system.posix_acl_default", listed)
    for path, mode, owner in (
        ("size-1", 0o6755, (1000, 1001)),
        ("size-59", 0o0400, (70_000, 4_000_000_000)),
        ("few", 0o1777, (5, 6)),
    ):
        os.chown(top / path, *owner)
        (top / path).chmod(mode)


def _times(top: Path) -> None:
    folder = top / "times"
    folder.mkdir()
    for number, time_ns in enumerate(
        (0, 1, -1, -1_000_000_001, 1_714_557_600_123_456_789, -2_147_483_648 * 10**9,
         2_147_483_647 * 10**9 + 999_999_999, 2_147_483_648 * 10**9, 4_294_967_296 * 10**9 + 7,
         15_032_385_535 * 10**9)
    ):  # fmt: skip
        path = folder / str(number)
        path.touch()
        with suppress(OSError):
            os.utime(path, ns=(time_ns, time_ns + 1))


def small(path: Path, point: Path, options: str) -> None:
    """A volume of 2 MiB with a little of everything."""
    make(path, options, size=2 << 20)
    chance = random.Random(1)
    with kernel_mount(path, point):
        _special(point)
        _links(point)
        for size in (0, 1, 50, 100, 3000, 30_000):
            (point / f"size-{size}").write_bytes(chance.randbytes(size))
        with (point / "sparse").open("wb") as file:
            for number in reversed(range(60)):
                file.seek(number * 8192)
                file.write(chance.randbytes(500))
                os.fsync(file.fileno())
        for name, size in (("user.a", 1), ("user.b", 120), ("user.c", 700)):
            os.setxattr(point / "size-1", name, bytes(size))
        many = point / "many"
        many.mkdir()
        for number in range(80):
            (many / f"{'name' * 10}-{number}").touch()
