"""ext volumes as a crash leaves them: the kernel's own, stopped in the middle of its work."""

import fcntl
import os
import random
import shutil
import struct
from contextlib import suppress
from pathlib import Path

from tests.guest.ext.volume import make
from tests.guest.kernel import kernel_mount

SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN: from this moment on nothing more is written to the device."""
NO_LOG_FLUSH = 2
JOURNAL_MAGIC = bytes.fromhex("c03b3998")

CASES = {
    "1k": ("-t ext4 -b 1024 -J size=4", "rw"),
    "2k": ("-t ext4 -b 2048 -J size=4 -O 64bit", "rw"),
    "4k": ("-t ext4 -b 4096 -J size=4", "rw"),
    "4k-data": ("-t ext4 -b 4096 -J size=8", "rw,data=journal"),
    "1k-data": ("-t ext4 -b 1024 -J size=4 -O ^metadata_csum", "rw,data=journal"),
    "no-checksums": ("-t ext4 -b 4096 -J size=4 -O ^metadata_csum,^64bit", "rw"),
    "commit-checksums": ("-t ext4 -b 2048 -J size=4 -O ^metadata_csum", "rw,journal_checksum"),
    "commit-checksums-data": (
        "-t ext4 -b 1024 -J size=4 -O ^metadata_csum,^64bit",
        "rw,journal_checksum,data=journal",
    ),
    "asynchronous": ("-t ext4 -b 4096 -J size=4", "rw,journal_async_commit,data=writeback"),
    "inline": ("-t ext4 -b 4096 -J size=4 -O inline_data -I 256", "rw"),
    "ext3": ("-t ext3 -b 1024 -J size=4", "rw,data=journal"),
    "fast-commits": ("-t ext4 -b 4096 -J size=8,fast_commit_size=1024 -O fast_commit", "rw"),
    "orphan-file": ("-t ext4 -b 4096 -J size=4 -O orphan_file", "rw"),
}
"""Options of mke2fs and of mount."""


def crashed(path: Path, point: Path, case: str, seed: int) -> None:
    """A volume that was in use when everything stopped."""
    options, mount = CASES[case]
    make(path, options, size=24 << 20)
    chance = random.Random(seed)
    with kernel_mount(path, point, mount + ",errors=continue"):
        for _ in range(chance.choice((20, 100, 400, 1200))):
            with suppress(FileNotFoundError, FileExistsError):
                step(point, chance)
        descriptor = os.open(point, os.O_RDONLY)
        fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        os.close(descriptor)


def step(top: Path, chance: random.Random) -> None:
    """One thing that programs do; what folders leave behind becomes other files' data."""
    folder = top / f"folder-{chance.randrange(6)}"
    path = folder / f"{'name' * chance.randrange(1, 20)}-{chance.randrange(40)}"
    match chance.randrange(16):
        case 0 | 1:
            folder.mkdir()
        case 2:
            shutil.rmtree(folder)
        case 3 | 4 | 5 | 6:
            write(path, chance)
        case 7:
            path.unlink()
        case 8:
            path.rename(folder / f"renamed-{chance.randrange(20)}")
        case 9:
            os.truncate(path, chance.randrange(50_000))
        case 10:
            path.symlink_to("x" * chance.randrange(1, 200))
        case 11:
            os.setxattr(
                path, f"user.{chance.randrange(5)}", chance.randbytes(chance.randrange(200))
            )
        case 12:
            os.link(path, folder / f"linked-{chance.randrange(20)}")
        case 13:
            path.chmod(chance.randrange(0o10000))
        case 14:
            for number in range(30):
                (folder / f"many-{chance.randrange(500)}-{number}").touch()
        case _:
            synchronize(folder, chance)


def write(path: Path, chance: random.Random) -> None:
    with path.open("r+b" if path.exists() and chance.random() < 0.5 else "wb") as file:
        file.seek(chance.choice((0, 0, 4096, 100_000)))
        content = chance.randbytes(chance.choice((10, 3000, 20_000, 100_000)))
        if chance.random() < 0.5:  # blocks that begin like the journal's own
            content = (JOURNAL_MAGIC + content[:1020]) * (1 + len(content) // 1024)
        file.write(content)
        file.flush()
        if chance.random() < 0.3:
            os.fsync(file.fileno())


def synchronize(folder: Path, chance: random.Random) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    if chance.random() < 0.05:
        os.sync()
