"""A volume whose guest crashed shows what the kernel finds after its own recovery: everything."""

import os
import shutil
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.guest.ext.crash import CASES, crashed
from tests.guest.kernel import differences, kernel_mount, need
from timefs.guest.ext import open_volume

pytestmark = [pytest.mark.system, pytest.mark.root]

SLICE_SEEDS = 1
SOAK_SEEDS = 50


@pytest.mark.timeout(0)
@pytest.mark.parametrize("case", CASES)
def test_a_crashed_volume_shows_what_recovery_finds(case: str, tmp_path: Path, soak: bool):
    need("mke2fs", file_system="ext4")
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
            with kernel_mount(copy, point, "rw,noatime"):
                assert differences(opened.root, point) == [], seed
        finally:
            os.close(descriptor)
    assert replayed > 0
