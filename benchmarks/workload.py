"""The workload: a seeded NTFS disk and ten generations of changes, replayed block by block.

Defined here and only here: `Workload`. A generation is kept as the numbers and the bytes of the
4 KiB blocks that it changed, so that every contender sees the same disk. Built once a folder; the
files of the system it is built on are part of it, so sizes compare only within one build. Root.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from guest import GIB_STANDARD, Guest
from processes import run

BLOCK = 4096
PARTITION_OFFSET = 1 << 20
CHUNK = 4 << 20
GENERATIONS = 10
VERSION = 1
"""Of what is built; another one is built again."""


class Workload:
    """A disk and what becomes of it."""

    def __init__(self, folder: Path, gib: float, seed: int) -> None:
        self.folder = folder
        self.base = folder / "base.raw"
        self.scale = gib / GIB_STANDARD
        self.size = int(gib * (1 << 30))
        self._seed = seed
        self._manifest = folder / "manifest.json"
        self._identity = {"gib": gib, "seed": seed, "version": VERSION}
        self.facts: dict[str, Any] = {}

    def prepare(self) -> None:
        """Build, unless it was built before."""
        if self._manifest.exists():
            facts = json.loads(self._manifest.read_text())
            if facts["identity"] == self._identity:
                self.facts = facts
                return
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        growing = self.folder / "growing.raw"
        self._format(growing)
        guest = Guest(self._seed, self.scale)
        with mounted_ntfs(growing, self.folder / "mnt") as volume:
            guest.fill(volume)
        run(["cp", "--sparse=always", growing, self.base])
        markers = []
        hashes = [sha256(growing)]
        changed = []
        for generation in range(1, GENERATIONS + 1):
            with mounted_ntfs(growing, self.folder / "mnt") as volume:
                markers.append(guest.change(volume, generation))
            changed.append(self._keep_changes(generation, growing))
            hashes.append(sha256(growing))
        growing.unlink()
        (self.folder / "previous.raw").unlink()
        self.facts = {
            "identity": self._identity,
            "sha256": hashes,
            "marker_sha256": markers,
            "big_sha256": guest.big_sha256,
            "changed_bytes": changed,
        }
        self._manifest.write_text(json.dumps(self.facts))

    def _format(self, disk: Path) -> None:
        with disk.open("wb") as file:
            file.truncate(self.size)
        last = self.size // 512 - 2049
        run(["sgdisk", "-o", "-n", f"1:2048:{last}", "-t", "1:0700", disk])
        with loop(disk, writable=True) as device:
            run(["mkntfs", "-Q", "-F", "-L", "data", "-p", "2048", "-H", "255", "-S", "63", device])

    def _keep_changes(self, generation: int, growing: Path) -> int:
        """Compare with the generation before, keep what differs; `previous.raw` follows."""
        previous = self.folder / "previous.raw"
        if generation == 1:
            run(["cp", "--sparse=always", self.base, previous])
        numbers: list[int] = []
        with (
            growing.open("rb") as new,
            previous.open("r+b") as old,
            (self.folder / f"{generation:02}.data").open("wb") as data,
        ):
            for at in range(0, self.size, CHUNK):
                now, then = os.pread(new.fileno(), CHUNK, at), os.pread(old.fileno(), CHUNK, at)
                if now == then:
                    continue
                shape = (-1, BLOCK // 8)
                words = np.frombuffer(now, np.uint64).reshape(shape)
                differ = (words != np.frombuffer(then, np.uint64).reshape(shape)).any(axis=1)
                for number in np.flatnonzero(differ).tolist():
                    data.write(now[number * BLOCK : (number + 1) * BLOCK])
                    numbers.append(at // BLOCK + number)
                os.pwrite(old.fileno(), now, at)
        np.save(self.folder / f"{generation:02}.npy", np.array(numbers, np.int64))
        return len(numbers) * BLOCK

    def changes(self, generation: int) -> Iterator[tuple[int, bytes]]:
        """What a generation changed: (offset, bytes) of each unbroken run of blocks, rising."""
        numbers = np.load(self.folder / f"{generation:02}.npy")
        starts = np.flatnonzero(np.r_[True, np.diff(numbers) != 1])
        with (self.folder / f"{generation:02}.data").open("rb") as data:
            for start, end in zip(starts, [*starts[1:], len(numbers)], strict=True):
                yield int(numbers[start]) * BLOCK, data.read(int(end - start) * BLOCK)

    def apply(self, generation: int, disk: Path) -> None:
        """Bring a disk from the generation before to this one."""
        with disk.open("r+b") as file:
            for offset, content in self.changes(generation):
                os.pwrite(file.fileno(), content, offset)
            os.fdatasync(file.fileno())


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def loop(image: Path, *, writable: bool = False) -> Generator[str]:
    """The partition of an image as a loop device."""
    size = image.stat().st_size - 2 * PARTITION_OFFSET
    command = ["losetup", "-f", "--show", "-o", str(PARTITION_OFFSET), "--sizelimit", str(size)]
    device = os.popen(" ".join([*command, *([] if writable else ["-r"]), str(image)])).read()
    if not device:
        raise RuntimeError(f"losetup {image}: it gave no device")
    try:
        yield device.strip()
    finally:
        run(["losetup", "-d", device.strip()])


@contextmanager
def mounted_ntfs(image: Path, mountpoint: Path, *, writable: bool = True) -> Generator[Path]:
    """The NTFS volume of an image."""
    mountpoint.mkdir(exist_ok=True)
    with loop(image, writable=writable) as device:
        run(["ntfs-3g", "-o", "big_writes" if writable else "ro", device, mountpoint])
        try:
            yield mountpoint
        finally:
            run(["umount", mountpoint])
