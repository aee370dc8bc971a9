"""The contenders: how each tool takes a disk in, and how it shows an old state of it.

Defined here and only here: `Contender` and its five subclasses. Each one keeps everything below a
folder of its own. Times include bringing what was written to the disk. Main thread only.
"""

import hashlib
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from guest import BIG, MARKER
from processes import Cost, Served, run, serving, stored_bytes, sync, synced, timed
from workload import Workload, mounted_ntfs

READY_SECONDS = 60


class Shown(NamedTuple):
    """A mounted generation: its disk, and who serves it."""

    disk: Path
    served: Served


class Contender(ABC):
    """A tool, its repository and its mounts."""

    name: str
    reads_all = True
    """Whether an increment reads the whole disk, or is told what changed."""

    def __init__(self, folder: Path, workload: Workload, disk: Path) -> None:
        self.folder = folder
        self.workload = workload
        self.disk = disk
        self.repository = folder / "repository"
        self.mountpoint = folder / "mnt"

    def start(self) -> None:
        """Make an empty repository."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.mountpoint.mkdir()
        self.init()

    @abstractmethod
    def init(self) -> None:
        """What `start` does beyond making folders."""

    @abstractmethod
    def ingest(self, generation: int) -> Cost:
        """Take the disk in as it is now."""

    @abstractmethod
    def mounted(self, generation: int) -> AbstractContextManager[Shown]:
        """Show the disk of a generation; ready when its first byte was read."""

    def stored_bytes(self) -> int:
        """What all generations together take."""
        return stored_bytes(self.repository)

    def caches(self) -> list[Path]:
        """Folders whose files are read when the repository is read."""
        return [self.repository]

    def copy_guest_file(self, generation: int, name: str, target: Path) -> None:
        """From nothing mounted to a guest file copied out, and nothing mounted again."""
        with (
            self.mounted(generation) as shown,
            mounted_ntfs(shown.disk, self.folder / "ntfs", writable=False) as volume,
        ):
            shutil.copyfile(volume / name, target)


def first_byte(path: Path) -> Callable[[], bool]:
    """Asks whether the first byte of a file can be read."""

    def ready() -> bool:
        with path.open("rb", buffering=0) as file:
            return len(file.read(1)) == 1

    return ready


class Timefs(Contender):
    name = "timefs"

    def init(self) -> None:
        self._command = [sys.executable, "-m", "timefs.cli.main", "-r", self.repository]
        self._command += ["--cache", self.folder / "cache"]
        run([*self._command, "init"])
        self._times: list[str] = []

    def ingest(self, generation: int) -> Cost:
        name = f"2026-01-{generation + 1:02}T10:00:00Z"
        self._times.append(name)
        command = [*self._command, "capture", "vm1", f"disk.raw={self.disk}", "--at", name]
        return synced(command, self.folder)

    def caches(self) -> list[Path]:
        return [self.repository, self.folder / "cache"]

    def instant(self, generation: int) -> Path:
        return self.mountpoint / "vm1" / self._times[generation]

    def mounted(self, generation: int) -> AbstractContextManager[Shown]:
        return self._shown(self.instant(generation) / "disk.raw")

    @contextmanager
    def _shown(self, ready: Path) -> Generator[Shown]:
        command = [*self._command, "mount", "--foreground", self.mountpoint]
        with serving(command, self.mountpoint, first_byte(ready)) as served:
            yield Shown(ready, served)

    def copy_guest_file(self, generation: int, name: str, target: Path) -> None:
        inside = self.instant(generation) / "disk" / name
        with self._shown(inside):
            shutil.copyfile(inside, target)

    def live_copy_seconds(self, generations: list[int]) -> list[float]:
        """Seconds to copy the marker of instants that a live mount has not opened yet."""
        seconds = []
        with self.mounted(generations[0]):
            for generation in generations[1:]:
                inside, target = self.instant(generation) / "disk" / MARKER, self.folder / "copy"
                seconds.append(timed(lambda a=inside, b=target: shutil.copyfile(a, b)))
                expect_marker(self.workload, generation, target)
        return seconds


class Restic(Contender):
    name = "restic"

    def init(self) -> None:
        self._env = {"RESTIC_PASSWORD": "benchmark", "RESTIC_CACHE_DIR": f"{self.folder}/cache"}
        self._command = ["restic", "-q", "-r", self.repository]
        run([*self._command, "init"], self._env)

    def ingest(self, generation: int) -> Cost:
        command = [*self._command, "backup", "--tag", f"g{generation}", self.disk]
        return synced(command, self.folder, env=self._env)

    def caches(self) -> list[Path]:
        return [self.repository, self.folder / "cache"]

    @contextmanager
    def mounted(self, generation: int) -> Generator[Shown]:
        tag = self.mountpoint / "tags" / f"g{generation}"

        def path() -> Path:
            instants = sorted(each for each in tag.iterdir() if each.name != "latest")
            return instants[0] / self.disk.relative_to("/")

        command = [*self._command, "mount", self.mountpoint]

        def ready() -> bool:
            return first_byte(path())()

        with serving(command, self.mountpoint, ready, self._env) as served:
            yield Shown(path(), served)


class Borg(Contender):
    name = "borg default"
    options: tuple[str, ...] = ()

    def __init__(self, folder: Path, workload: Workload, disk: Path, program: Path) -> None:
        super().__init__(folder, workload, disk)
        self._program = program
        self._env = {
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_BASE_DIR": str(folder / "base"),
        }

    def init(self) -> None:
        (self.folder / "base").mkdir()
        run([self._program, "init", "-e", "none", self.repository], self._env)

    def ingest(self, generation: int) -> Cost:
        archive = f"{self.repository}::g{generation}"
        command = [self._program, "create", *self.options, archive, self.disk.name]
        return synced(command, self.folder, env=self._env, cwd=self.disk.parent)

    def caches(self) -> list[Path]:
        return [self.repository, self.folder / "base"]

    @contextmanager
    def mounted(self, generation: int) -> Generator[Shown]:
        path = self.mountpoint / self.disk.name
        archive = f"{self.repository}::g{generation}"
        command = [self._program, "mount", "-f", archive, self.mountpoint]
        with serving(command, self.mountpoint, first_byte(path), self._env) as served:
            yield Shown(path, served)


class BorgFixed(Borg):
    name = "borg fixed 64K"
    options = ("--sparse", "--chunker-params", "fixed,65536", "-C", "zstd,3")


class Qcow2(Contender):
    name = "qcow2 chain"
    reads_all = False

    def init(self) -> None:
        self.repository.mkdir()
        self._point = self.folder / "disk"
        self._point.touch()

    def _layer(self, generation: int) -> Path:
        return self.repository / f"g{generation}.qcow2"

    def ingest(self, generation: int) -> Cost:
        layer = self._layer(generation)
        if generation == 0:
            convert = ["qemu-img", "convert", "-O", "qcow2", "-c", "-o", "compression_type=zstd"]
            return synced([*convert, self.disk, layer], self.folder)
        below = self._layer(generation - 1)
        options = ["-o", "extended_l2=on,cluster_size=128k", "-b", below, "-F", "qcow2"]
        cost = run(["qemu-img", "create", "-f", "qcow2", *options, layer])
        spent: list[Cost] = []
        seconds = timed(lambda: spent.append(self._overwrite(generation)))
        seconds += timed(lambda: sync(self.folder))
        return cost.plus(spent[0]._replace(seconds=seconds))

    def _overwrite(self, generation: int) -> Cost:
        with self._exported(generation, writable=True) as served:
            with self._point.open("r+b") as file:
                for offset, content in self.workload.changes(generation):
                    os.pwrite(file.fileno(), content, offset)
                os.fsync(file.fileno())
            return served.cost()

    @contextmanager
    def _exported(self, generation: int, *, writable: bool) -> Generator[Served]:
        only = "" if writable else ",read-only=on"
        command = ["qemu-storage-daemon", "--blockdev"]
        command += [f"driver=file,node-name=f0,filename={self._layer(generation)}{only}"]
        command += ["--blockdev", f"driver=qcow2,node-name=d0,file=f0{only}", "--export"]
        export = f"type=fuse,id=e0,node-name=d0,mountpoint={self._point},writable="
        command += [export + ("on" if writable else "off")]
        with serving(command, self._point, first_byte(self._point), by_signal=True) as served:
            yield served

    @contextmanager
    def mounted(self, generation: int) -> Generator[Shown]:
        with self._exported(generation, writable=False) as served:
            yield Shown(self._point, served)


def expect_marker(workload: Workload, generation: int, copy: Path) -> None:
    """A copy of the marker is that generation's."""
    got = hashlib.sha256(copy.read_bytes()).hexdigest()
    if got != workload.facts["marker_sha256"][generation - 1]:
        raise RuntimeError(f"{MARKER} of generation {generation}: got other bytes")


def expect_big(workload: Workload, copy: Path) -> None:
    """A copy of the big file is right."""
    if hashlib.sha256(copy.read_bytes()).hexdigest() != workload.facts["big_sha256"]:
        raise RuntimeError(f"{BIG}: got other bytes")
