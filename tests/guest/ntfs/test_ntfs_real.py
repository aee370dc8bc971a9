"""Volumes that Windows made show exactly what ntfs-3g shows of them."""

import gzip
import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from tests.guest.ntfs.second_opinion import second_opinion
from tests.guest.ntfs.volume import difference, mounted, opened, view_mounted, view_parsed
from timefs.tree import Leaf, descend, walk

pytestmark = [pytest.mark.system, pytest.mark.root, pytest.mark.usefixtures("ntfs_3g")]

PARTITION = slice(128 * 512, (128 + 14336) * 512)
"""Where the NTFS volume lies on each of the small disks."""

DIGESTS = {
    "File.txt": "44eb4b6e23eb49cdfc4af1bd52dea7a8b25dc83eff3dd3b4d7531a8a4edf8d3d",
    "Directory/File 1.txt": "213e984f98c31b7e9a6ed59b476a06e16a313bb9d3d938d681fefdaace2a705c",
    "Directory/File 2.txt": "e739bf4cb069b9ea1d083ac3c05ef6acf6a363b96a2a4f6f2e0329bc09117b52",
    "Large.txt": "5b766f6d76a999636fd93b4e039d5a32187f84a19c0950449f0c721da0223914",
    "Random.bin": "abe14bae00734c703772844542916a386641bca80c1db871729826732cc603fa",
}


def unpacked(source: Path, target: Path) -> Path:
    target.write_bytes(gzip.decompress(source.read_bytes()))
    return target


def assert_agrees(image: Path) -> None:
    """Everything that ntfs-3g shows, and descriptors and contents by a second reader."""
    with mounted(image, "ro") as root:
        expected = view_mounted(root)
    with opened(image) as volume:
        got = view_parsed(volume.root)
    assert got.keys() == expected.keys()
    for path, seen in expected.items():
        assert got[path].links <= seen.links, path  # ntfs-3g counts 8.3 aliases as links
        expected[path] = seen._replace(links=got[path].links)
    assert difference(expected, got) == []
    for name, (digest, acl) in second_opinion(image).items():
        path = os.fsencode(name)
        assert not acl or got[path].xattrs[b"system.ntfs_acl"] == bytes.fromhex(acl), name
        assert got[path].digest == digest or got[path].kind != "file", name


def test_a_bare_volume(images_dir: Path, tmp_path: Path) -> None:
    image = unpacked(images_dir / "ntfs.bin.gz", tmp_path / "ntfs.bin")
    assert_agrees(image)
    with opened(image) as volume:
        assert len(list(descend(volume.root))) >= 2058
        for path, digest in DIGESTS.items():
            node = walk(volume.root, path.encode().split(b"/"))
            assert isinstance(node, Leaf)
            content = node.open()
            assert hashlib.sha256(content.read(0, content.size)).hexdigest() == digest


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("fixed.vhd", "vpc"),
        ("dynamic.vhd", "vpc"),
        ("fixed.vhdx", "vhdx"),
        ("dynamic.vhdx", "vhdx"),
    ],
)
def test_volumes_on_virtual_disks(images_dir: Path, tmp_path: Path, name: str, kind: str) -> None:
    disk = unpacked(images_dir / f"{name}.gz", tmp_path / name)
    raw = tmp_path / "disk.raw"
    subprocess.run(
        ["qemu-img", "convert", "-f", kind, "-O", "raw", disk, raw], check=True, timeout=60
    )
    volume = tmp_path / "volume"
    volume.write_bytes(raw.read_bytes()[PARTITION])
    assert_agrees(volume)
