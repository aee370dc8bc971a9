"""A volume whose guest crashed shows what the kernel finds after its own recovery: everything."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.guest.ext.crash import CASES, crashed
from tests.guest.kernel import differences, kernel_mount, need
from timefs.guest.ext import ExtVolume, open_volume
from timefs.guest.ext.content import mapped
from timefs.guest.ext.superblock import read_superblock
from timefs.guest.ext.table import Table

pytestmark = [pytest.mark.system, pytest.mark.root]

SLICE_SEEDS = 1
SOAK_SEEDS = 50


def blocks_apart(opened: ExtVolume, recovered: Path) -> list[int]:
    """Blocks that e2fsck recovers to other bytes.

    Its own marks in superblocks and the counts that it makes anew in descriptors do not count.
    """
    superblock = read_superblock(opened.image)
    step = superblock.block_bytes
    table = Table(opened.image, superblock)
    journal = mapped(table, table.inode(superblock.journal_inode))
    own = {
        block
        for extent in journal.extents(0, journal.size)
        for block in range(extent.place // step, (extent.place + extent.length) // step)
    }
    descriptors = -(-superblock.groups * superblock.descriptor_bytes // step)
    first = superblock.first_block + 1
    own.update(range(first, first + descriptors))
    truth = recovered.read_bytes()
    apart: list[int] = []
    for block in range(superblock.blocks):
        ours, theirs = (
            opened.image.read(block * step, step),
            truth[block * step : block * step + step],
        )
        if block * step <= 1024 < block * step + step or theirs[56:58] == b"\x53\xef":
            continue
        if ours != theirs and block not in own:
            apart.append(block)
    return apart


def recovered(volume: Path) -> Path:
    """A copy that e2fsck has replayed the journal of, and nothing else."""
    copy = volume.with_name("recovered")
    shutil.copyfile(volume, copy)
    command = ["e2fsck", "-fy", "-E", "journal_only", copy]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1, done.stdout  # it has changed something
    return copy


@pytest.mark.timeout(0)
@pytest.mark.parametrize("case", CASES)
def test_a_crashed_volume_shows_what_recovery_finds(case: str, tmp_path: Path, soak: bool):
    need("mke2fs", "e2fsck", file_system="ext4")
    volume, copy, point = tmp_path / "volume", tmp_path / "copy", tmp_path / "point"
    replayed = 0
    for seed in range(SOAK_SEEDS if soak else SLICE_SEEDS):
        crashed(volume, point, case, seed)
        shutil.copyfile(volume, copy)
        descriptor = os.open(volume, os.O_RDONLY)
        try:
            opened = open_volume(DescriptorImage(descriptor), b"id")
            if case == "fast-commits" and opened.state.endswith("it ends in fast commits"):
                continue
            assert opened.state.startswith("journal replayed: "), (seed, opened.state)
            replayed += int(opened.state.split()[2])
            if case != "fast-commits":  # of which e2fsck and the kernel differ
                assert blocks_apart(opened, recovered(volume)) == [], seed
            with kernel_mount(copy, point, "rw,noatime"):
                assert differences(opened.root, point) == [], seed
        finally:
            os.close(descriptor)
    assert replayed > 0
