"""One small volume of every file system, all filled from one folder; for tests of all parsers."""

import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from store.image import Image
from tests.guest.fat.exfat import exfat_mount
from tests.guest.kernel import kernel_mount, need, run
from tests.guest.ntfs.conftest import need_ntfs_3g
from tests.guest.ntfs.volume import mounted as ntfs_mount
from timefs.guest.ext import open_volume as open_ext
from timefs.guest.fat import open_exfat, open_fat
from timefs.guest.filesystems import Volume
from timefs.guest.ntfs import open_volume as open_ntfs
from timefs.guest.xfs import open_volume as open_xfs

SECOND_NS = 10**9
MODIFIED_NS = 1_714_557_602 * SECOND_NS


class Kind(NamedTuple):
    """A file system, how a volume of it is made, and who opens it."""

    make: Callable[[Path, Path], None]
    """(volume, folder with what it shall hold)."""
    open: Callable[[Image, bytes], Volume]
    hard_links: bool = False
    symbolic_links: bool = False


def fill(top: Path, *, hard_links: bool, symbolic_links: bool) -> None:
    """What each volume holds: plain names first, as DOS wrote them, then others."""
    chance = random.Random(1)
    (top / "AAA" / "BBB").mkdir(parents=True)
    (top / "ZZZ" / "a folder with a long name").mkdir(parents=True)
    for number, name in enumerate(
        ("AAA/IN.TXT", "AAA/EMPTY", "AAA/BBB/DEEP.TXT", "FIRST.TXT", "SECOND.TXT", "EMPTY",
         "a long name, larger than others", "ZZZ/Größe", "ZZZ/a folder with a long name/x")
    ):  # fmt: skip
        path = top / name
        path.write_bytes(b"" if "EMPTY" in name else chance.randbytes(100 + 2000 * number))
    if hard_links:
        os.link(top / "FIRST.TXT", top / "AAA" / "the first again")
        os.link(top / "FIRST.TXT", top / "ZZZ" / "and again")
        os.link(top / "EMPTY", top / "empty again")
    if symbolic_links:
        (top / "AAA" / "link").symlink_to("../FIRST.TXT")
        (top / "ZZZ" / "link").symlink_to("../FIRST.TXT")
    for path in top.rglob("*"):
        os.utime(path, ns=(MODIFIED_NS, MODIFIED_NS), follow_symlinks=False)


def _sized(volume: Path, size: int) -> Path:
    with volume.open("wb") as file:
        file.truncate(size)
    return volume


def _fat(options: str, size: int) -> Callable[[Path, Path], None]:
    def make(volume: Path, top: Path) -> None:
        need("mkfs.fat", "mcopy")
        run("mkfs.fat", *options.split(), _sized(volume, size))
        tools = ["env", "TZ=UTC", "LC_ALL=C.UTF-8", "mcopy"]
        run(*tools, "-s", "-m", "-Q", "-i", volume, *sorted(top.iterdir()), "::")

    return make


def _exfat(volume: Path, top: Path) -> None:
    need("mkfs.exfat", "mount.exfat-fuse", "fuser", file_system="fuseblk")
    run("mkfs.exfat", "-b", "64K", "-c", "512", _sized(volume, 2 << 20))
    with exfat_mount(volume, volume.with_name("point"), "rw") as point:
        run("cp", "-r", "--preserve=timestamps", *sorted(top.iterdir()), point)


def _ntfs(volume: Path, top: Path) -> None:
    need_ntfs_3g()
    run("mkntfs", "-F", "-Q", "-q", "-c", "1024", _sized(volume, 4 << 20))
    with ntfs_mount(volume, "rw") as point:
        run("cp", "-a", *sorted(top.iterdir()), point)
        os.setxattr(point / "FIRST.TXT", "user.stream", b"of the first")
        os.setxattr(point / "SECOND.TXT", "user.stream", b"of the second")


def _ext(version: str) -> Callable[[Path, Path], None]:
    def make(volume: Path, top: Path) -> None:
        need("mke2fs")
        run("mke2fs", "-q", "-F", "-t", version, "-d", top, _sized(volume, 4 << 20))

    return make


def _xfs(volume: Path, top: Path) -> None:
    need("mkfs.xfs", file_system="xfs")
    run("mkfs.xfs", "-q", "-d", f"name={volume},size=16m,file=1", "--unsupported")
    with kernel_mount(volume, volume.with_name("point")) as point:
        run("cp", "-a", *sorted(top.iterdir()), point)


KINDS: Mapping[str, Kind] = {
    "fat12": Kind(_fat("-F 12 -s 1", 2 << 20), open_fat),
    "fat12-labelled": Kind(_fat("-F 12 -s 1 -n DATA", 2 << 20), open_fat),
    "fat16": Kind(_fat("-F 16 -s 1", 5 << 20), open_fat),
    "fat16-labelled": Kind(_fat("-F 16 -s 1 -n DATA", 5 << 20), open_fat),
    "fat32": Kind(_fat("-F 32 -s 1", 34 << 20), open_fat),
    "exfat": Kind(_exfat, open_exfat),
    "ntfs": Kind(_ntfs, open_ntfs, hard_links=True),
    "ext2": Kind(_ext("ext2"), open_ext, hard_links=True, symbolic_links=True),
    "ext3": Kind(_ext("ext3"), open_ext, hard_links=True, symbolic_links=True),
    "ext4": Kind(_ext("ext4"), open_ext, hard_links=True, symbolic_links=True),
    "xfs": Kind(_xfs, open_xfs, hard_links=True, symbolic_links=True),
}


def made(kind: str, folder: Path) -> tuple[Path, Path]:
    """A volume of a kind, and the folder that it was filled from. Skips where a tool is missing."""
    top, volume = folder / f"{kind}.top", folder / f"{kind}.img"
    top.mkdir()
    has = KINDS[kind]
    fill(top, hard_links=has.hard_links, symbolic_links=has.symbolic_links)
    has.make(volume, top)
    return volume, top


all_kinds = pytest.mark.parametrize("kind", KINDS)
