"""A link's text lies where the kernel looks for it: in a block if it has blocks, whatever its size.

Each volume is made by mke2fs, changed by debugfs, and read by the kernel and by us.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from store.errors import TimefsError
from store.image import DescriptorImage
from tests.guest.ext.volume import make
from tests.guest.kernel import kernel_mount, need, run
from timefs.guest.ext import open_volume
from timefs.tree import Folder, Link

pytestmark = [pytest.mark.system, pytest.mark.root]

KINDS = {
    "ext2": "-t ext2 -b 1024",
    "ext4": "-t ext4 -b 4096 -O ^metadata_csum",
    "clusters": "-t ext4 -b 1024 -O bigalloc,^metadata_csum -C 16384",
    "inline": "-t ext4 -b 4096 -I 512 -O inline_data,ea_inode,^metadata_csum",
}
LENGTHS = (1, 5, 59, 60, 61, 150, 400, 1022)
SIZES = (1, 4, 59, 60, 500, 5000)
CHANGES = ("size", "blocks", "flags")


def links_of(root: Folder) -> dict[bytes, bytes | None]:
    """Each link's target, None where it cannot be read."""
    found: dict[bytes, bytes | None] = {}
    for name, node in root.entries():
        if isinstance(node, Link):
            found[name] = None
            with suppress(TimefsError):
                found[name] = node.target()
    return found


def kernels(point: Path) -> dict[bytes, bytes | None]:
    """The same by the kernel; a link to nothing counts as one that cannot be read."""
    found: dict[bytes, bytes | None] = {}
    for path in point.iterdir():
        if path.name != "lost+found":
            found[path.name.encode()] = None
            with suppress(OSError):
                found[path.name.encode()] = os.fsencode(path.readlink())
    nothing = b"."  # as which pathlib gives an empty target
    return {name: None if target == nothing else target for name, target in found.items()}


def changed(volume: Path, point: Path, options: str, changes: Sequence[str]) -> None:
    """A volume of links, of which debugfs then changes fields; attributes make blocks, too."""
    make(volume, options, size=16 << 20)
    with kernel_mount(volume, point):
        for length in LENGTHS:
            for kind in ("plain", "with-attributes", *CHANGES):
                path = point / f"{kind}-{length}"
                path.symlink_to(("abcdefghij/" * 100)[:length])
                if kind == "with-attributes":
                    os.setxattr(path, "trusted.long", b"v" * 600, follow_symlinks=False)
    run("debugfs", "-w", "-f", "-", volume, stdin="\n".join([*changes, ""]).encode())


@pytest.mark.parametrize("kind", KINDS)
def test_every_link_reads_as_the_kernel_reads_it(kind: str, tmp_path: Path):
    need("mke2fs", "debugfs", file_system="ext4")
    volume, point = tmp_path / "volume", tmp_path / "point"
    sizes = dict(zip(LENGTHS, (*SIZES, 0, 60), strict=True))
    changes = [f"sif /size-{length} size {size}" for length, size in sizes.items()]
    changes += [f"sif /blocks-{length} blocks {8 * (length < 60)}" for length in LENGTHS]
    changes += [f"sif /flags-{length} flags 0" for length in LENGTHS]
    changed(volume, point, KINDS[kind], changes)
    descriptor = os.open(volume, os.O_RDONLY)
    try:
        with kernel_mount(volume, point, "ro"):
            expected = kernels(point)
            found = links_of(open_volume(DescriptorImage(descriptor), b"id").root)
    finally:
        os.close(descriptor)
    assert len(expected) == 5 * len(LENGTHS)
    assert found == expected
    assert sum(target is not None for target in found.values()) > 3 * len(LENGTHS)
