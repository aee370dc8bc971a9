"""Whatever is damaged in a FAT or exFAT volume, reading it ends with declared errors only."""

import random
from pathlib import Path

import pytest

from store.image import Image
from tests.fuzz.parser import survive
from tests.guest.fat.exfat import exfat_mount
from tests.guest.kernel import need, run
from timefs.guest.fat import open_exfat, open_fat
from timefs.tree import Folder

pytestmark = [pytest.mark.system, pytest.mark.root]

KINDS = {"12": 2 << 20, "16": 10 << 20, "32": 34 << 20}


def open_fat_root(image: Image) -> Folder:
    return open_fat(image, b"fuzz").root


def open_exfat_root(image: Image) -> Folder:
    return open_exfat(image, b"fuzz").root


def tree(top: Path) -> None:
    chance = random.Random(1)
    for number in range(30):
        folder = top / f"folder-{number % 4}" / "inner"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{'long ' * (number % 9)}{number}").write_bytes(chance.randbytes(number * 97))


@pytest.mark.timeout(0)  # as many cases as asked for, each with an alarm
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_fat_volume_gives_declared_errors_only(kind: str, cases: int, tmp_path: Path):
    need("mkfs.fat", "mcopy")
    volume, top = tmp_path / "volume", tmp_path / "top"
    tree(top)
    with volume.open("wb") as file:
        file.truncate(KINDS[kind])
    run("mkfs.fat", "-F", kind, "-s", "1", volume)
    run("mcopy", "-s", "-i", volume, *sorted(top.iterdir()), "::")
    survive(volume.read_bytes(), open_fat_root, range(cases // len(KINDS)), tmp_path)


@pytest.mark.timeout(0)  # as many cases as asked for, each with an alarm
def test_a_damaged_exfat_volume_gives_declared_errors_only(cases: int, tmp_path: Path):
    need("mkfs.exfat", "mount.exfat-fuse", "fuser", file_system="fuseblk")
    volume = tmp_path / "volume"
    with volume.open("wb") as file:
        file.truncate(2 << 20)
    run("mkfs.exfat", "-b", "64K", "-c", "512", volume)
    with exfat_mount(volume, tmp_path / "point", "rw") as top:
        tree(top)
    survive(volume.read_bytes(), open_exfat_root, range(cases), tmp_path)
