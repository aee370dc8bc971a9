"""Whatever is damaged in an ext volume, reading it ends in time, with declared errors only."""

from pathlib import Path

import pytest

from store.image import Image
from tests.fuzz.parser import survive
from tests.guest.ext.crash import crashed
from tests.guest.ext.volume import small
from tests.guest.kernel import need
from timefs.guest.ext import open_volume
from timefs.tree import Folder

pytestmark = [pytest.mark.system, pytest.mark.root]

KINDS = {
    "ext2": "-t ext2 -b 1024",
    "ext4": "-t ext4 -b 1024 -O ^metadata_csum",
    "inline": "-t ext4 -b 4096 -O inline_data,ea_inode,^metadata_csum -I 512",
    "checked": "-t ext4 -b 1024",
    "crashed": "no-checksums",
    "crashed-checked": "1k",
}


def opener(image: Image) -> Folder:
    return open_volume(image, b"fuzz").root


@pytest.mark.timeout(0)  # as many cases as asked for, each with an alarm
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_volume_gives_declared_errors_only(kind: str, cases: int, tmp_path: Path) -> None:
    need("mke2fs", file_system="ext4")
    volume, point = tmp_path / "volume", tmp_path / "point"
    if kind.startswith("crashed"):
        crashed(volume, point, KINDS[kind], 103)
    else:
        small(volume, point, KINDS[kind])
    survive(volume.read_bytes(), opener, range(cases // len(KINDS)), tmp_path)
