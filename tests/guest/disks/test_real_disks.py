"""Disks that others made, given by --images: every byte by the digests that came with them."""

import gzip
import hashlib
import re
import shutil
from pathlib import Path

import pytest

from store.image import BytesImage
from tests.guest.disks.qemu import opened
from timefs.guest.detect import decode

DIGEST = re.compile(r"^\| ([\w.-]+) \| (\d+) \| ([0-9a-f]{64})", re.MULTILINE)
STEP_BYTES = 4 << 20
VHDX = ("vhdx-log-replay.vhdx", "lvm2.vhdx", "btrfs.vhdx", "xfs.vhdx", "fixed.vhdx", "dynamic.vhdx")
OTHERS = ("fixed.vhd", "dynamic.vhd", "basic.qcow2", "basic.vdi", "sesparse.vmdk")
DESCRIPTOR = b"""# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="seSparse"
RW 1048576 SESPARSE "sesparse.vmdk"
"""


@pytest.mark.parametrize("name", [*VHDX, *OTHERS])
def test_content_has_the_digest_that_came_with_it(name: str, images_dir: Path, tmp_path: Path):
    size, digest = next(
        (int(size), digest)
        for found, size, digest in DIGEST.findall((images_dir / "README.md").read_text())
        if found == name
    )
    with gzip.open(images_dir / f"{name}.gz") as packed, (tmp_path / name).open("wb") as file:
        shutil.copyfileobj(packed, file, STEP_BYTES)
    got = hashlib.sha256()
    with opened(tmp_path) as files:
        container = BytesImage(DESCRIPTOR) if name.startswith("sesparse") else files[name]
        disk = decode(container, files.find)
        assert disk.size == size
        for offset in range(0, size, STEP_BYTES):
            got.update(disk.read(offset, STEP_BYTES))
    (tmp_path / name).unlink()
    assert got.hexdigest() == digest
