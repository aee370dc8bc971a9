"""exFAT volumes, written through exfat-fuse, show what exfat-fuse shows: everything it knows."""

import os
import random
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.guest.fat.exfat import exfat_mount
from tests.guest.kernel import differences, leaves_are_made_again, lookup_agrees, need, run
from timefs.guest.fat import open_exfat

pytestmark = [pytest.mark.system, pytest.mark.root]

NOT_STORED = frozenset({"mode", "owner", "ctime", "links", "allocated", "xattrs"})
CASES = {
    "small-clusters": "-c 512",
    "4k": "-c 4096",
    "128k": "-c 131072",
}


def populate(top: Path, chance: random.Random) -> None:
    for size in (0, 1, 511, 512, 4096, 100_000, 3_000_000):
        (top / f"size-{size}").write_bytes(chance.randbytes(size))
    for name in ("Größe", "日本語の名前", "emoji 😀 name", "n" * 255, "a.b.c.d", "UPPER lower"):
        (top / name).write_text(name)
    handles = [(top / f"woven-{number}").open("wb") for number in range(4)]
    for _ in range(120):  # clusters of several files in turn: fragmented
        for handle in handles:
            handle.write(chance.randbytes(1500))
            handle.flush()
    for handle in handles:
        handle.close()
    with (top / "mostly-unwritten").open("wb") as file:
        file.write(b"beginning")
        file.truncate(1_000_000)
    deep = top
    for number in range(15):
        deep /= f"deep-{number}"
        deep.mkdir()
    (deep / "end").write_bytes(b"the end")
    many = top / "many"
    many.mkdir()
    for number in range(400):
        (many / f"{'name' * (number % 20)}-{number}").write_bytes(b"x" * number)
    for number in range(0, 400, 3):
        (many / f"{'name' * (number % 20)}-{number}").unlink()
    os.utime(top / "size-1", ns=(10**18, 1_714_557_601_230_000_000))


@pytest.mark.parametrize("case", CASES)
def test_a_volume_shows_what_exfat_fuse_shows(case: str, tmp_path: Path):
    need("mkfs.exfat", "mount.exfat-fuse", "fuser", file_system="fuseblk")
    volume, point = tmp_path / "volume", tmp_path / "point"
    with volume.open("wb") as file:
        file.truncate(128 << 20)
    run("mkfs.exfat", "-L", "Data", *CASES[case].split(), volume)
    with exfat_mount(volume, point, "rw") as top:
        populate(top, random.Random(1))
    descriptor = os.open(volume, os.O_RDONLY)
    try:
        opened = open_exfat(DescriptorImage(descriptor), b"id")
        assert opened.label == "Data"
        with exfat_mount(volume, point, "ro") as top:
            assert differences(opened.root, top, NOT_STORED) == []
        lookup_agrees(opened.root)
        leaves_are_made_again(opened.root)
        assert opened.root.xattrs() == {b"user.timefs.volume_state": b"clean"}
    finally:
        os.close(descriptor)
