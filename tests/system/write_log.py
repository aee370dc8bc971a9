"""A disk that logs every write in order, so that any moment of a power cut can be made again.

qemu-storage-daemon keeps the log (its `blklogwrites` filter) and shows the disk as a file; a
loop device makes a block device of that. Source of the log's format: the Linux kernel's
Documentation/admin-guide/device-mapper/log-writes.rst and drivers/md/dm-log-writes.c; QEMU's
block/blklogwrites.c writes the same, except that `nr_entries` is rewritten only at a flush: who
reads a log that is still written stops at the first header that is none.
"""

import os
import shutil
import struct
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import BinaryIO, Final, NamedTuple

import pytest

SUPER: Final = struct.Struct("<QQQI")
ENTRY: Final = struct.Struct("<QQQQ")
MAGIC: Final = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8
SECTOR: Final = 512
TOOLS: Final = ("qemu-storage-daemon", "losetup", "mkfs.ext4", "mount", "umount")


def need_root_and_loops() -> None:
    """Skip where no block device can be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for needed in ("/dev/fuse", "/dev/loop-control"):
        if not Path(needed).exists():
            pytest.skip(f"no {needed} here")
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def run(*command: "str | Path") -> str:
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, text=True)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout.strip()


class Entry(NamedTuple):
    """One write, or a flush."""

    offset: int
    length: int
    flags: int
    data_at: int
    """Where its bytes are in the log."""
    end: int
    """Where the next entry begins."""

    def data(self, log: BinaryIO) -> bytes:
        log.seek(self.data_at)
        return log.read(self.length)


def entries(path: Path) -> Generator[Entry]:
    """What a log holds, in the order in which the disk took it."""
    with path.open("rb") as log:
        magic, version, _, sector = SUPER.unpack(log.read(SUPER.size))
        assert (magic, version, sector) == (MAGIC, 1, SECTOR)
        end = log.seek(0, os.SEEK_END)
        at = SECTOR
        while at + SECTOR <= end:
            log.seek(at)
            first, count, flags, _ = ENTRY.unpack(log.read(ENTRY.size))
            if flags & ~15 or (count == 0 and flags == 0):
                return
            length = count * SECTOR
            following = at + SECTOR + (0 if flags & DISCARD else length)
            if following > end:
                return
            yield Entry(first * SECTOR, length, flags, at + SECTOR, following)
            at = following


class LoggedDisk(NamedTuple):
    """A block device whose writes are logged."""

    device: Path
    log: Path

    def place(self) -> int:
        """Where the log ends now: all that the disk has acknowledged is before this."""
        return self.log.stat().st_size


@contextmanager
def logged_disk(folder: Path, size: int) -> Generator[LoggedDisk]:
    """A new disk of zeros."""
    raw, log, shown = folder / "disk", folder / "log", folder / "shown"
    for path, length in ((raw, size), (log, 0), (shown, 0)):
        with path.open("wb") as file:
            file.truncate(length)
    nodes = [
        f"driver=file,filename={raw},node-name=raw",
        f"driver=file,filename={log},node-name=log",
        "driver=blklogwrites,file=raw,log=log,node-name=logged,log-sector-size=512",
    ]
    export = f"type=fuse,id=export,node-name=logged,mountpoint={shown},writable=on"
    blockdevs = [word for node in nodes for word in ("--blockdev", node)]
    daemon = subprocess.Popen(["qemu-storage-daemon", *blockdevs, "--export", export])
    with ExitStack() as stack:
        stack.callback(daemon.wait, 30)
        stack.callback(daemon.terminate)
        for _ in range(200):
            if shown.stat().st_size == size:
                break
            time.sleep(0.05)
        assert shown.stat().st_size == size
        device = Path(run("losetup", "--find", "--show", shown))
        stack.callback(run, "losetup", "--detach", device)
        yield LoggedDisk(device, log)


@contextmanager
def mounted_at(what: Path, folder: Path, *options: str) -> Generator[Path]:
    """A file system, mounted while the block runs."""
    folder.mkdir(exist_ok=True)
    run("mount", *options, what, folder)
    try:
        yield folder
    except BaseException:
        run("umount", "--lazy", folder)  # what failed may still have files open
        raise
    run("umount", folder)


class Replay:
    """The disk as power cuts at rising moments leave it."""

    def __init__(self, log: Path, work: Path, size: int) -> None:
        self._log = log
        self._flushed = work / "flushed"
        self._cut = work / "cut"
        self._rest = entries(log)
        self._pending: list[Entry] = []
        with self._flushed.open("wb") as file:
            file.truncate(size)

    def cut(self, place: int, random: Random | None) -> Path:
        """The disk after a power cut when the log ended at `place`.

        All that was flushed is there. Of what followed, everything is if `random` is none, else any
        part of it, torn between sectors, as a disk's own cache may keep it.
        """
        with self._log.open("rb") as log, self._flushed.open("r+b") as flushed:
            for entry in self._rest:
                self._pending.append(entry)
                if entry.flags & FLUSH and entry.end <= place:
                    for earlier in self._pending:
                        _apply(log, earlier, flushed, earlier.length)
                    self._pending = []
                if entry.end >= place:
                    break
        shutil.copyfile(self._flushed, self._cut)
        with self._log.open("rb") as log, self._cut.open("r+b") as cut:
            for entry in self._pending:
                if entry.end <= place:
                    kept = entry.length
                    if random is not None:
                        kept = random.choice([0, entry.length, random.randrange(entry.length + 1)])
                    _apply(log, entry, cut, kept // SECTOR * SECTOR)
        return self._cut


def _apply(log: BinaryIO, entry: Entry, target: BinaryIO, length: int) -> None:
    if length and not entry.flags & DISCARD:
        target.seek(entry.offset)
        target.write(entry.data(log)[:length])
