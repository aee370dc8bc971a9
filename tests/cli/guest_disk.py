"""A small virtual disk as a guest would have it: GPT and NTFS in a VHDX, filled through ntfs-3g."""

import hashlib
import random
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.guest.ntfs.volume import mounted

DISK_BYTES = 48 << 20
PARTITION_OFFSET = 1 << 20
PARTITION_BYTES = 46 << 20
TOOLS = ("mkntfs", "ntfs-3g", "qemu-img", "sgdisk", "umount")


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, (command, done.stdout, done.stderr)


def tool(name: str) -> str:
    """A program that a user's PATH may not show."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


class GuestDisk:
    """`disk.vhdx` in a folder, and its volume, which a guest changes."""

    def __init__(self, folder: Path, scheme: str = "gpt") -> None:
        self.folder = folder
        self.path = folder / "disk.vhdx"
        self.raw = folder / "disk.raw"
        self._partition = folder / "partition"
        self.sums: dict[str, str] = {}
        """sha256 of the guest's files as they are now, by path."""
        with self._partition.open("wb") as file:
            file.truncate(PARTITION_BYTES)
        with self.raw.open("wb") as file:
            file.truncate(DISK_BYTES)
        run(tool("mkntfs"), "-F", "-Q", "-L", "Data", "-p", "2048", self._partition)
        label = ["-o", "-n", f"1:2048:+{PARTITION_BYTES >> 10}K", "-t", "1:0700"]
        run(tool("sgdisk"), *label, *(["-m", "1"] if scheme == "mbr" else []), self.raw)

    @contextmanager
    def volume(self) -> Generator[Path]:
        """The guest's volume to be changed; the disk follows."""
        with mounted(self._partition, "big_writes") as volume:
            yield volume
            files = [path for path in volume.rglob("*") if path.is_file()]
            self.sums = {str(path.relative_to(volume)): sha256(path) for path in files}
        with self._partition.open("rb") as source, self.raw.open("r+b") as target:
            target.seek(PARTITION_OFFSET)
            shutil.copyfileobj(source, target, 4 << 20)
        self.path.unlink(missing_ok=True)
        run(*self.convert("vhdx", "subformat=dynamic"), self.path)

    def convert(self, form: str, options: str) -> list[str | Path]:
        """The command, but for its target, that makes the disk into a container."""
        command = [tool("qemu-img"), "convert", "-f", "raw", "-O", form]
        return [*command, *(["-o", options] if options else []), self.raw]

    def work(self, generation: int) -> None:
        """What a guest does in a while."""
        source = random.Random(generation)
        with self.volume() as volume:
            for name in ("Data", "docs", "sql"):
                (volume / name).mkdir(exist_ok=True)
            (volume / "docs" / "report.txt").write_text(f"Report {generation}\n" * 300)
            (volume / "Data" / f"letter-{generation}.txt").write_bytes(source.randbytes(5000))
            database = volume / "sql" / "database.mdf"
            if not database.exists():
                database.write_bytes(source.randbytes(2 << 20))
            with database.open("r+b") as file:
                file.seek(source.randrange(200) * 8192)
                file.write(source.randbytes(8192))


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
