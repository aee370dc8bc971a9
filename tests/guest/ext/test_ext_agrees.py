"""Volumes of every feature, written by the kernel, show what the kernel shows: everything."""

import os
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.guest.ext.volume import CASES, populated
from tests.guest.kernel import differences, kernel_mount, leaves_are_made_again, lookup_agrees, need
from timefs.guest.ext import open_volume

pytestmark = [pytest.mark.system, pytest.mark.root]


@pytest.mark.parametrize("case", CASES)
def test_a_volume_shows_what_the_kernel_shows(case: str, tmp_path: Path):
    need("mke2fs", file_system="ext4")
    options, mount = CASES[case]
    volume, point = tmp_path / "volume", tmp_path / "point"
    populated(volume, point, options, mount)
    with kernel_mount(volume, point, "ro,noatime"):
        descriptor = os.open(volume, os.O_RDONLY)
        try:
            opened = open_volume(DescriptorImage(descriptor), b"id")
            assert (opened.label, opened.state) == ("Data", "clean")
            assert differences(opened.root, point) == []
            lookup_agrees(opened.root)
            leaves_are_made_again(opened.root)
        finally:
            os.close(descriptor)
