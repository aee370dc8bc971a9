"""FAT volumes, written by mtools, show what was written and what mtools copies out again."""

import os
import random
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.guest.kernel import differences, leaves_are_made_again, lookup_agrees, need, run
from timefs.guest.fat import open_fat

pytestmark = pytest.mark.system

NOT_STORED = frozenset({"mode", "owner", "ctime", "atime", "links", "allocated", "xattrs", "mtime"})
CASES = {
    "12": ("-F 12 -s 1", 4 << 20 >> 1),
    "12-large-clusters": ("-F 12 -s 16", 24 << 20),
    "16": ("-F 16 -s 2", 24 << 20),
    "16-4k-sectors": ("-F 16 -S 4096 -s 1", 32 << 20),
    "32": ("-F 32 -s 1", 40 << 20),
    "32-one-table": ("-F 32 -s 8 -f 1", 300 << 20),
}
SECOND_NS = 1_000_000_000


def source(top: Path, chance: random.Random) -> None:
    top.mkdir()
    for size in (0, 1, 511, 512, 4096, 100_000, 400_000):
        (top / f"size-{size}").write_bytes(chance.randbytes(size))
    for name in ("SHORT.TXT", "lower.txt", "Mixed.Txt", "no-extension", "a.b.c", "x" * 200,
                 "Größe", "日本語", "with space.text", "UPPER.low", "low.UPP"):  # fmt: skip
        (top / name).write_text(name)
    deep = top
    for number in range(8):
        deep /= f"deep-{number}"
        deep.mkdir()
    (deep / "end").write_bytes(b"the end")
    many = top / "many"
    many.mkdir()
    for number in range(150):
        (many / f"name-{'long' * (number % 10)}-{number}").write_bytes(b"x" * number)
    for path in top.rglob("*"):
        os.utime(path, ns=(1_714_557_600 * SECOND_NS, 1_714_557_602 * SECOND_NS))


def written(volume: Path, top: Path, options: str, size: int) -> None:
    """A volume with the files of `top`, in clusters of which every second was in use before."""
    with volume.open("wb") as file:
        file.truncate(size)
    run("mkfs.fat", "-n", "DATA", *options.split(), volume)
    with (top.parent / "filler").open("wb") as file:
        file.truncate(60_000)
    fillers = [f"::FILL{number:03}" for number in range(10)]
    for filler in fillers:
        run("mcopy", "-i", volume, top.parent / "filler", filler)
    for filler in fillers[::2]:
        run("mdel", "-i", volume, filler)
    run("mcopy", "-s", "-m", "-Q", "-i", volume, *sorted(top.iterdir()), "::")
    for filler in fillers[1::2]:
        run("mdel", "-i", volume, filler)


@pytest.mark.parametrize("case", CASES)
def test_a_volume_shows_what_was_written(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    need("mkfs.fat", "mcopy", "mdel", "fsck.fat")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    top, volume = tmp_path / "top", tmp_path / "volume"
    source(top, random.Random(1))
    written(volume, top, *CASES[case])
    run("fsck.fat", "-n", volume)
    descriptor = os.open(volume, os.O_RDONLY)
    try:
        opened = open_fat(DescriptorImage(descriptor), b"id")
        assert opened.label == "DATA"
        assert differences(opened.root, top, NOT_STORED) == []
        lookup_agrees(opened.root)
        leaves_are_made_again(opened.root)
        size = opened.root.lookup(b"size-4096").attributes()
        assert size.mtime_ns == 1_714_557_602 * SECOND_NS
        out = tmp_path / "out"
        out.mkdir()
        run("mcopy", "-s", "-n", "-Q", "-i", volume, "::*", out)
        assert differences(opened.root, out, NOT_STORED) == []
        assert opened.root.xattrs() == {b"user.timefs.volume_state": b"clean"}
    finally:
        os.close(descriptor)
