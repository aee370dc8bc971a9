"""QEMU's tools as oracle: making disks, writing them at random, and what they then hold."""

import os
import random
import shutil
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from store.image import DescriptorImage, ExtentKind, Image

KIB = 1 << 10
MIB = 1 << 20


def need(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def run(*command: "str | Path | int", cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        timeout=120,
        check=False,
        cwd=cwd,
        text=True,
    )
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    return done.stdout


def create(path: Path, kind: str, size: int, options: Sequence[str] = (), *more: str) -> None:
    chosen = ("-o", ",".join(options)) if options else ()
    run("qemu-img", "create", "-q", "-f", kind, *chosen, *more, path, size, cwd=path.parent)


def scribble(
    path: Path, kind: str, size: int, chance: random.Random, writes: int = 30, unit: int = 512
) -> None:
    """Random writes, zeros and discards, in random order and at random places."""
    commands: list[str] = []
    for _ in range(writes):
        longest = chance.choice((unit, 4 * KIB, 64 * KIB, 300 * KIB, 3 * MIB))
        length = min(chance.randrange(1, max(longest // unit, 1) + 1) * unit, size)
        offset = chance.randrange((size - length) // unit + 1) * unit
        verb = chance.choices(("write -P", "write -z", "discard"), (8, 1, 1))[0]
        pattern = f" {chance.randrange(1, 256)}" if verb == "write -P" else ""
        commands += ["-c", f"{verb}{pattern} {offset} {length}"]
    run("qemu-io", "-f", kind, *commands, path, cwd=path.parent)


def truth(path: Path, kind: str) -> bytes:
    """What QEMU reads."""
    raw = path.with_name(path.name + ".truth")
    run("qemu-img", "convert", "-f", kind, "-O", "raw", path, raw, cwd=path.parent)
    content = raw.read_bytes()
    raw.unlink()
    return content


@contextmanager
def opened(folder: Path) -> Generator["Folder"]:
    """The files of a folder as images, by name."""
    held = Folder(folder)
    try:
        yield held
    finally:
        held.close()


class Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}

    def find(self, name: str) -> Image | None:
        if not (self._folder / name).is_file():
            return None
        if name not in self._held:
            self._held[name] = os.open(self._folder / name, os.O_RDONLY)
        return DescriptorImage(self._held[name])

    def __getitem__(self, name: str) -> Image:
        image = self.find(name)
        assert image is not None
        return image

    def close(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)


def agree(disk: Image, expected: bytes, chance: random.Random, reads: int = 60) -> None:
    """Every byte, random unaligned reads across every boundary, and the extents."""
    assert disk.size == len(expected)
    assert disk.read(0, disk.size) == expected
    edges = [0, disk.size]
    at = 0
    for extent in disk.extents(0, disk.size):
        assert extent.offset == at
        assert extent.length > 0
        at += extent.length
        edges.append(at)
        piece = expected[extent.offset : at]
        if extent.kind == ExtentKind.ZERO:
            assert piece == bytes(extent.length)
        else:
            assert extent.backing is not None
            assert extent.backing.read(extent.place, extent.length) == piece
    assert at == disk.size
    for _ in range(reads):
        edge = chance.choice((*edges[:200], chance.randrange(disk.size)))
        offset = min(max(edge - chance.randrange(1, 5000), 0), disk.size)
        length = chance.randrange(1, 12000)
        assert disk.read(offset, length) == expected[offset : offset + length]
