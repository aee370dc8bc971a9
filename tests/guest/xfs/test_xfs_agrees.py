"""XFS volumes of every form, written by the kernel, show what the kernel shows: everything."""

import os
import random
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.guest.ext.volume import populate
from tests.guest.kernel import (
    differences,
    kernel_mount,
    leaves_are_made_again,
    lookup_agrees,
    need,
    run,
)
from timefs.guest.xfs import open_volume

pytestmark = [pytest.mark.system, pytest.mark.root]

CASES = {
    "5": "",
    "5-1k": "-b size=1024",
    "5-large-folder-blocks": "-n size=16384",
    "5-small-times": "-m bigtime=0,reflink=0 -i size=1024",
    "5-wide-counts": "-i nrext64=1",
}


def many_attributes(top: Path) -> None:
    path = top / "many-attributes"
    path.write_bytes(b"")
    for number in range(150):
        os.setxattr(path, f"user.number-{number}", bytes([number]) * 90)
    os.setxattr(path, "user.long", random.Random(2).randbytes(30_000))


@pytest.mark.parametrize("case", CASES)
def test_a_volume_shows_what_the_kernel_shows(case: str, tmp_path: Path):
    need("mkfs.xfs", file_system="xfs")
    volume, point = tmp_path / "volume", tmp_path / "point"
    with volume.open("wb") as file:
        file.truncate(320 << 20)
    run("mkfs.xfs", "-q", "-L", "Data", *CASES[case].split(), volume)
    with kernel_mount(volume, point) as top:
        populate(top, random.Random(1))
        many_attributes(top)
    with kernel_mount(volume, point, "ro,noatime"):
        descriptor = os.open(volume, os.O_RDONLY)
        try:
            opened = open_volume(DescriptorImage(descriptor), b"id")
            assert opened.label == "Data"
            assert differences(opened.root, point) == []
            lookup_agrees(opened.root)
            leaves_are_made_again(opened.root)
        finally:
            os.close(descriptor)
