"""A journal that is damaged: what the kernel recovers is shown, what it refuses is not replayed."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.guest.ext.crash import CASES, crashed
from tests.guest.kernel import differences, kernel_mount, need
from timefs.guest.ext import open_volume
from timefs.guest.ext.content import mapped
from timefs.guest.ext.journal_log import MAGIC
from timefs.guest.ext.superblock import read_superblock
from timefs.guest.ext.table import Table

pytestmark = [pytest.mark.system, pytest.mark.root]

SLICE_DAMAGES = 4
SOAK_DAMAGES = 200


def damage(volume: Path, chance: random.Random) -> str:
    """One damage to a block of the journal; its own blocks are hit more often than data."""
    descriptor = os.open(volume, os.O_RDWR)
    try:
        image = DescriptorImage(descriptor)
        superblock = read_superblock(image)
        table = Table(image, superblock)
        journal = mapped(table, table.inode(superblock.journal_inode))
        step = superblock.block_bytes
        used = [at for at in range(step, journal.size, step) if any(journal.read(at, 64))]
        own = [at for at in used if journal.read(at, 4) == MAGIC]
        at = chance.choice(own if own and chance.random() < 0.7 else used)
        block = bytearray(journal.read(at, step))
        place = chance.choice((chance.randrange(64), chance.randrange(step), step - 2))
        kind = "a bit"
        if chance.random() < 0.3:
            block[:] = bytes(step)
            kind = "all"
        else:
            block[place] ^= 1 << chance.randrange(8)
        (extent,) = journal.extents(at, step)
        os.pwrite(descriptor, block, extent.place)
        return f"{kind} of journal block {at // step} at {place}"
    finally:
        os.close(descriptor)


def sound(volume: Path) -> bool:
    """Whether e2fsck finds nothing wrong."""
    done = subprocess.run(["e2fsck", "-fn", volume], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


@pytest.mark.timeout(0)
@pytest.mark.parametrize("case", ["4k", "1k", "commit-checksums", "4k-data", "asynchronous"])
def test_a_damaged_journal_gives_what_the_kernel_gives(case: str, tmp_path: Path, soak: bool):
    need("mke2fs", "e2fsck", file_system="ext4")
    volume, copy, point = tmp_path / "volume", tmp_path / "copy", tmp_path / "point"
    assert case in CASES
    for seed in range(SOAK_DAMAGES if soak else SLICE_DAMAGES):
        if seed % SLICE_DAMAGES == 0:
            crashed(tmp_path / "whole", point, case, seed + 1000)
        shutil.copyfile(tmp_path / "whole", volume)
        done = damage(volume, random.Random(seed))
        shutil.copyfile(volume, copy)
        descriptor = os.open(volume, os.O_RDONLY)
        try:
            opened = open_volume(DescriptorImage(descriptor), b"id")
            try:
                with kernel_mount(copy, point, "rw,noatime"):
                    assert opened.state.startswith("journal replayed: "), (seed, done, opened.state)
                    wrong = differences(opened.root, point)
                if sound(copy):  # else both show a state that never was
                    assert wrong == [], (seed, done)
            except subprocess.CalledProcessError:
                assert opened.state.startswith("journal not replayed: "), (seed, done)
        finally:
            os.close(descriptor)
