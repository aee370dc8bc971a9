"""XFS without checksums, which new kernels refuse: what mkfs.xfs puts in comes out again."""

import os
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.fuzz.test_xfs_fuzz import prototype
from tests.guest.kernel import leaves_are_made_again, lookup_agrees, need, run, shown
from timefs.guest.xfs import open_volume
from timefs.tree import Folder, Leaf, Link, walk

pytestmark = pytest.mark.system

CASES = {
    "named-types": "-n ftype=1",
    "small-inodes": "-n ftype=0 -i size=256",
    "small-blocks": "-n ftype=0 -b size=1024 -i size=256",
}


@pytest.mark.parametrize("case", CASES)
def test_a_volume_shows_what_was_put_in(case: str, tmp_path: Path):
    need("mkfs.xfs")
    volume = tmp_path / "volume"
    run(
        *("mkfs.xfs", "-q", "-m", "crc=0", *CASES[case].split(), "-p", prototype(tmp_path)),
        *("-d", f"name={volume},size=16m,file=1", "--unsupported"),
    )
    content = (tmp_path / "content").read_bytes()
    descriptor = os.open(volume, os.O_RDONLY)
    try:
        root = open_volume(DescriptorImage(descriptor), b"id").root
        names = {name for name, _ in root.entries()}
        assert names == {b"many", b"null", b"pipe"} | {
            *(b"link-%d" % number for number in (1, 30, 150)),
            *(b"file-%d" % number for number in range(20)),
        }
        for number in (1, 30, 150):
            link = root.lookup(b"link-%d" % number)
            assert isinstance(link, Link)
            assert link.target() == b"target" * number
        many = walk(root, [b"many"])
        assert isinstance(many, Folder)
        entries = list(many.entries())
        assert len(entries) == 40
        for _, node in [*entries, *root.entries()]:
            if isinstance(node, Leaf):
                assert node.open().read(0, 10_000) == content
        assert shown(entries[0].node)["mode"] == oct(0o106755)
        assert shown(root.lookup(b"null"))["device"] == os.makedev(1, 3)
        assert shown(many)["owner"] == (5, 6)
        lookup_agrees(root)
        leaves_are_made_again(root)
    finally:
        os.close(descriptor)
