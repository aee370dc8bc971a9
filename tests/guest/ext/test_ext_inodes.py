"""Whatever the fields of inodes say, a volume shows what the kernel shows, one by one and together.

Each volume is made by mke2fs, changed by debugfs, and read by the kernel and by us.
"""

import os
from itertools import chain
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.guest.ext.volume import make
from tests.guest.kernel import differences, kernel_mount, need, run
from timefs.guest.ext import open_volume
from timefs.tree import Folder, descend

pytestmark = [pytest.mark.system, pytest.mark.root]

KINDS = {
    "ext2": "-t ext2 -b 1024 -I 128",
    "ext4": "-t ext4 -b 4096 -I 512 -O ^metadata_csum",
    "large-folders": "-t ext4 -b 1024 -I 256 -O large_dir,^metadata_csum",
    "no-huge-files": "-t ext4 -b 4096 -I 256 -O ^huge_file,^metadata_csum",
}
HUGE, EXTENTS = 0x40000, 0x80000
FIELDS = {
    **{f"extra-{size}": (f"extra_isize {size}",) for size in (0, 4, 8, 12, 16, 20, 24, 28, 32)},
    **{f"extra-{size}": (f"extra_isize {size}",) for size in (3, 600)},
    "many-blocks": ("blocks 4000000000",),
    "more-blocks": ("blocks_hi 7", "blocks 12"),
    "huge": (f"flags {HUGE | EXTENTS}", "blocks 9"),
    "large": ("size_high 2",),
    "owners": ("uid 4000000000", "gid 3000000000"),
    "links": ("links_count 60000",),
    "late": ("mtime_extra 3", "ctime_extra 6", "atime_extra 5"),
    "early": ("mtime 0x80000000", "mtime_extra 0"),
}
FOLDER_FIELDS = {
    "no-multiple": ("size 5000",),
    "longer": ("size 20000",),
    "large-folder": ("size_high 1",),
}


def filled(volume: Path, point: Path, options: str) -> None:
    """A volume of files and folders named after what debugfs then changes of them."""
    make(volume, options, size=16 << 20)
    with kernel_mount(volume, point):
        for name in FIELDS:
            (point / name).write_bytes(b"content")
            os.utime(point / name, ns=(1_700_000_000_123_456_789, 1_600_000_000_987_654_321))
        for name in FOLDER_FIELDS:
            (point / name).mkdir()
            for number in range(10):
                (point / name / str(number)).touch()
    changes = [
        f"sif /{name} {change}"
        for name, changes in (FIELDS | FOLDER_FIELDS).items()
        for change in changes
    ]
    run("debugfs", "-w", "-f", "-", volume, stdin="\n".join([*changes, ""]).encode())


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_read_as_the_kernel_reads_them(kind: str, tmp_path: Path):
    need("mke2fs", "debugfs", file_system="ext4")
    volume, point = tmp_path / "volume", tmp_path / "point"
    filled(volume, point, KINDS[kind])
    descriptor = os.open(volume, os.O_RDONLY)
    try:
        root = open_volume(DescriptorImage(descriptor), b"id").root
        with kernel_mount(volume, point, "ro,noatime"):
            assert differences(root, point) == []
        folders = [root, *(node for _, node in descend(root) if isinstance(node, Folder))]
        together = 0
        for folder in folders:
            for _, node, found in chain.from_iterable(folder.entries_with_attributes()):
                if found is not None:
                    assert found == node.attributes()
                    together += 1
        assert together > 30
    finally:
        os.close(descriptor)
