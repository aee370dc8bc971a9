"""Tables and labels that lead nowhere are still told of, and hide nothing that is whole."""

import struct
import subprocess
from pathlib import Path

import pytest

from store.image import BytesImage, Image
from tests.guest.kernel import run
from timefs.guest.detect import has_volumes
from timefs.guest.disktree import partitions_folder
from timefs.tree import Folder, Leaf


def reasons(folder: Folder) -> dict[bytes, bytes]:
    """Name and text of each line that says why something is not shown."""
    return {
        name: node.open().read(0, 4096) for name, node in folder.entries() if isinstance(node, Leaf)
    }


@pytest.mark.parametrize("size", [512, 4096, 512 << 10, 1 << 20])
def test_a_disk_cut_off_before_all_its_partitions_tells_of_each(tmp_path: Path, size: int):
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(60 << 20)
    subprocess.run(
        ["sfdisk", "-q", "--no-reread", path],
        input=b"label: dos\n4096,45000,L\n50000,9000,L\n",
        check=True,
        timeout=30,
    )
    disk: Image = BytesImage(path.read_bytes()[:size])
    assert has_volumes(disk)
    said = reasons(partitions_folder(disk, b"", 0))
    assert {*said} == {b"p1.unsupported", b"p2.unsupported"}
    assert all(
        f"expected it within the disk's {size} bytes".encode() in text for text in said.values()
    )


@pytest.mark.parametrize("sector", [0, 1])
def test_a_label_of_a_volume_group_that_is_not_whole_hides_no_volume(tmp_path: Path, sector: int):
    source = tmp_path / "source"
    source.mkdir()
    (source / "here.txt").write_text("here")
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", source, path)
    content = bytearray(path.read_bytes())
    label = b"LABELONE" + struct.pack("<Q4xI", sector, 32) + b"LVM2 001"
    content[sector * 512 : sector * 512 + len(label)] = label
    shown = partitions_folder(BytesImage(bytes(content)), b"", 0)
    volume = shown.lookup(b"p0")
    assert isinstance(volume, Folder)
    assert b"here.txt" in {name for name, _ in volume.entries()}


def test_such_a_label_alone_is_told_of():
    content = bytearray(1 << 20)
    content[512 : 512 + 32] = b"LABELONE" + struct.pack("<Q4xI", 1, 32) + b"LVM2 001"
    said = reasons(partitions_folder(BytesImage(bytes(content)), b"", 0))
    assert any(b"LVM2" in text for text in said.values())
