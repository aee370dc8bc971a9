"""What is on the workload's disk: databases, text, system files, and how they change.

Defined here and only here: `Guest`. All that is generated comes from one seed; system files are the
first of this machine's, by path.
"""

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MIB = 1 << 20
PAGE = 8192
GIB_STANDARD = 4
"""The sizes below are those of a disk of so many GiB; others are in proportion."""

DATABASE_MIB = 512
BIG_MIB = 100
RANDOM_MIB = 160
ZEROS_MIB = 128
DELETED_MIB = 64
SYSTEM_MIB = 1300
TWICE_MIB = 110
TEXTS = 6000
TEXTS_NEW, TEXTS_CHANGED = 24, 12
BLOB_MIB = 24
PAGES_CHANGED = 655
MARKER_BYTES = 5 << 10
MARKER = "docs/gen.txt"
BIG = "data/big100.bin"


class Guest:
    """Fills a volume and works in it."""

    def __init__(self, seed: int, scale: float) -> None:
        self._random = np.random.Generator(np.random.SFC64(seed))
        self._scale = scale
        letters = "abcdefghijklmnopqrstuvwxyz"
        lengths = self._random.integers(2, 11, 4000)
        picks = self._random.integers(0, 26, int(lengths.sum())).tolist()
        text = "".join(letters[pick] for pick in picks)
        ends = np.cumsum(lengths).tolist()
        self._words = [text[e - n : e] for e, n in zip(ends, lengths.tolist(), strict=True)]
        self._texts = self._scaled(TEXTS)
        self._pages = self._scaled(DATABASE_MIB) * MIB // PAGE
        self.big_sha256 = ""

    def _scaled(self, count: int) -> int:
        return max(1, round(count * self._scale))

    def fill(self, volume: Path) -> None:
        """Everything that generation 0 has."""
        for name in ("sql", "text", "data", "docs"):
            (volume / name).mkdir()
        deleted = volume / "data" / "deleted.bin"
        self._write(deleted, self._noise(self._scaled(DELETED_MIB)))
        self._write(volume / "sql" / "database.mdf", self._database())
        for number in range(self._texts):
            path = self._text_path(volume, number)
            path.parent.mkdir(exist_ok=True)
            path.write_text(self._text())
        self._write(volume / BIG, self._half_noise(self._scaled(BIG_MIB)))
        self.big_sha256 = hashlib.sha256((volume / BIG).read_bytes()).hexdigest()
        self._write(volume / "data" / "random.bin", self._noise(self._scaled(RANDOM_MIB)))
        zeros = (bytes(MIB) for _ in range(self._scaled(ZEROS_MIB)))
        self._write(volume / "data" / "zeros.bin", zeros)
        copied = _copy(system_files(self._scaled(SYSTEM_MIB) * MIB), volume / "system")
        _copy(_until(copied, self._scaled(TWICE_MIB) * MIB), volume / "again")
        self._mark(volume, 0)
        deleted.unlink()

    def change(self, volume: Path, generation: int) -> str:
        """The work of one generation; answers the sha256 of its marker."""
        with (volume / "sql" / "database.mdf").open("r+b") as database:
            for page in self._random.choice(self._pages, self._scaled(PAGES_CHANGED), False):
                os.pwrite(database.fileno(), self._page_bytes(int(page), 1), int(page) * PAGE)
        for number in range(self._texts, self._texts + self._scaled(TEXTS_NEW)):
            path = self._text_path(volume, number)
            path.parent.mkdir(exist_ok=True)
            path.write_text(self._text())
        for number in self._random.integers(0, self._texts, self._scaled(TEXTS_CHANGED)).tolist():
            self._text_path(volume, number).write_text(self._text())
        self._texts += self._scaled(TEXTS_NEW)
        blob = volume / "data" / f"blob{generation:02}.bin"
        self._write(blob, self._half_noise(self._scaled(BLOB_MIB)))
        return self._mark(volume, generation)

    def _mark(self, volume: Path, generation: int) -> str:
        line = f"generation {generation:02}: {self._text()}\n"
        content = (line * (MARKER_BYTES // len(line) + 1))[:MARKER_BYTES].encode()
        (volume / MARKER).write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    @staticmethod
    def _text_path(volume: Path, number: int) -> Path:
        return volume / "text" / f"{number // 200:03}" / f"note {number:05}.txt"

    def _text(self) -> str:
        picks = self._random.integers(0, len(self._words), int(self._random.integers(80, 1600)))
        return " ".join(self._words[pick] for pick in picks.tolist())

    def _page_bytes(self, first: int, count: int) -> bytes:
        """Pages of which every second 64 bytes are random and the others a numbered row."""
        pages = np.zeros((count, PAGE // 128, 128), np.uint8)
        pages[:, :, 64:] = self._random.integers(0, 256, (count, PAGE // 128, 64), np.uint8)
        rows = pages[:, :, :64].view(np.uint64)
        rows[:, :, 0] = np.arange(first, first + count)[:, None]
        rows[:, :, 1] = np.arange(PAGE // 128)[None, :]
        rows[:, :, 2:] = 0x2020202020206D64
        return pages.tobytes()

    def _database(self) -> Iterator[bytes]:
        for first in range(0, self._pages, MIB // PAGE):
            yield self._page_bytes(first, MIB // PAGE)

    def _noise(self, mebibytes: int) -> Iterator[bytes]:
        for _ in range(mebibytes):
            yield self._random.bytes(MIB)

    def _half_noise(self, mebibytes: int) -> Iterator[bytes]:
        """Every block half random, half the same byte, and no two alike."""
        for _ in range(mebibytes):
            blocks = np.full((MIB // 4096, 4096), ord("="), np.uint8)
            blocks[:, 2048:] = self._random.integers(0, 256, (MIB // 4096, 2048), np.uint8)
            yield blocks.tobytes()

    @staticmethod
    def _write(path: Path, parts: Iterator[bytes]) -> None:
        with path.open("wb") as file:
            for part in parts:
                file.write(part)


def system_files(wanted_bytes: int) -> list[Path]:
    """Files of this machine up to a sum of sizes: libraries, programs, documents, by path."""
    roots = [Path("/usr/bin"), Path("/usr/share"), Path("/usr/lib"), Path(sys.prefix)]
    third = wanted_bytes // 3
    chosen = [file for root in roots[:2] for file in _until(_regular(root), third // 2)]
    rest = wanted_bytes - sum(file.stat().st_size for file in chosen)
    libraries = _until((f for root in roots[2:] for f in _regular(root)), rest)
    return [*chosen, *libraries]


def _regular(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and name.isprintable():
                yield path


def _until(files: Iterator[Path] | list[Path], wanted_bytes: int) -> list[Path]:
    chosen: list[Path] = []
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > wanted_bytes:
            break
        chosen.append(file)
    return chosen


def _copy(files: list[Path], folder: Path) -> list[Path]:
    """Copy files; their folders are numbered, as a guest's tree is never this machine's."""
    folder.mkdir()
    copies: list[Path] = []
    for number, file in enumerate(files):
        below = folder / f"{number // 200:03}"
        below.mkdir(exist_ok=True)
        copy = below / f"{number % 200:03} {file.name[:80]}".replace(":", "_")
        copy.write_bytes(file.read_bytes())
        copies.append(copy)
    return copies
