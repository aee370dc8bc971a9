"""A machine whose instants a test knows byte by byte, captured by real `timefs` processes."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

from store.format.row import BLOCK_BYTES
from store.history import Instant
from store.keep.check import check
from store.repository import Repository
from timefs.cli.session import rfc3339

ROOT = Path(__file__).parents[2]
NAME = "vm1"
SECONDS = 120


def seeded(fixed: int, *, soak: bool) -> Random:
    """A fixed course of events in the small slice, another one each time under --soak."""
    seed = int.from_bytes(os.urandom(4)) if soak else fixed
    print(f"seed {seed}")
    return Random(seed)


class Machine:
    """One disk, its captures, and what every acknowledged instant of it must read as."""

    def __init__(self, folder: Path, random: Random, *, size: int, cache: Path | None = None):
        self.root = folder / "repository"
        self.cache = cache or folder / "cache"
        self.disk = folder / "disk.raw"
        self.name = NAME
        self.random = random
        self.size = size
        self.acknowledged: dict[str, str] = {}
        self.tried: set[str] = set()

    def command(self, *words: "str | Path") -> list[str]:
        program = [sys.executable, "-m", "timefs.cli.main", "--json"]
        places = ["-r", str(self.root), "--cache", str(self.cache)]
        return [*program, *places, *map(str, words)]

    def run(self, *words: "str | Path") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*words),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def init(self) -> None:
        done = self.run("init")
        assert done.returncode == 0, done.stderr

    # The disk

    def rewrite(self) -> None:
        """New content throughout, of nearly the same size, with a hole."""
        length = self.size - self.random.randrange(64) * 512
        content = bytearray(self.random.randbytes(length))
        hole = self.random.randrange(8) * BLOCK_BYTES
        content[hole : hole + 3 * BLOCK_BYTES] = bytes(3 * BLOCK_BYTES)
        self._write(content)

    def change(self, blocks: int) -> None:
        """Some bytes here and there change."""
        content = bytearray(self.disk.read_bytes())
        for _ in range(blocks):
            at = self.random.randrange(len(content) - 512)
            content[at : at + 512] = self.random.randbytes(512)
        self._write(content)

    def _write(self, content: bytearray) -> None:
        self.disk.write_bytes(content)
        self.tried.add(hashlib.sha256(content).hexdigest())

    # Captures

    def start(self, *wrapper: str) -> "subprocess.Popen[str]":
        return self.popen([*wrapper, *self.command("capture", self.name, self.disk)])

    def popen(self, command: "list[str]") -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(self, process: "subprocess.Popen[str]") -> "dict[str, Any] | None":
        """What the capture acknowledged before it ended, however it ended."""
        said, _ = process.communicate(timeout=SECONDS)
        return self.acknowledge(said)

    def acknowledge(self, said: str) -> "dict[str, Any] | None":
        if not said.endswith("\n"):
            return None
        done: dict[str, Any] = json.loads(said)
        self.acknowledged[done["time"]] = hashlib.sha256(self.disk.read_bytes()).hexdigest()
        return done

    def capture(self) -> "dict[str, Any]":
        process = self.start()
        said, errors = process.communicate(timeout=SECONDS)
        assert (process.returncode, errors) == (0, ""), (process.returncode, said, errors)
        done = self.acknowledge(said)
        assert done is not None
        return done

    # The history

    def verify(self, *, deep: bool = True) -> None:
        """Nothing acknowledged is lost, no instant has a byte that was never there, all checks."""
        repository = Repository(self.root, self.cache)
        try:
            names = repository.history.machines()
            found: dict[str, Instant] = {}
            if self.name in names:
                found = {rfc3339(at.time_ns): at for at in repository.history.instants(self.name)}
            assert not self.acknowledged.keys() - found.keys()
            for spelled, instant in found.items():
                content = digest(repository, instant)
                if spelled in self.acknowledged:
                    assert content == self.acknowledged[spelled]
                else:  # durable, though nobody was told so: from now on it must stay
                    assert content in self.tried
                    self.acknowledged[spelled] = content
            report = check(repository, deep=deep, progress=lambda _: None)
            assert not report.findings, report.findings
        finally:
            repository.close()

    def packs_bytes(self) -> int:
        """Bytes of all sealed packs."""
        packs = [path for path in (self.root / "packs").glob("*/*") if path.name.isdigit()]
        return sum(path.stat().st_size for path in packs)

    def left_overs(self) -> list[Path]:
        """Files that nobody will ever ask for again."""
        hidden = [path for path in self.root.rglob("*") if path.name.startswith(".")]
        unfinished = list(self.root.rglob("*#*"))
        return [*hidden, *unfinished, *self.cache.rglob("*.new")]


def digest(repository: Repository, instant: Instant) -> str:
    """SHA-256 of the instant's only file."""
    (file,) = repository.history.files(instant)
    image = repository.history.open(instant, file)
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(4 << 20))
    for offset in range(0, image.size, len(buffer)):
        count = image.read_into(offset, buffer)
        hasher.update(buffer[:count])
    return hasher.hexdigest()
