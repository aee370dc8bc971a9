"""Disks in chains through a real mount: each instant by the parent that it had then."""

import errno
import hashlib
import random
import uuid
from pathlib import Path

import pytest

from store.image import BytesImage
from tests.guest.disks import vhd_writer, vhdx_writer
from tests.guest.disks.qemu import MIB, create, need, scribble, truth
from tests.timetree.memory_history import MemoryHistory
from timefs.mount.mounting import mounted
from timefs.times import SECOND_NS
from timefs.timetree import TimeTree

pytestmark = pytest.mark.system
TEN = 1_714_557_600 * SECOND_NS


@pytest.fixture(autouse=True)
def fuse() -> None:
    if not Path("/dev/fuse").exists():
        pytest.skip("no /dev/fuse here")


def digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def test_a_child_is_read_on_the_parent_of_its_instant(tmp_path: Path):
    need("qemu-img", "qemu-io")
    disks, mount = tmp_path / "disks", tmp_path / "mount"
    disks.mkdir()
    mount.mkdir()
    base, child = disks / "base.qcow2", disks / "child.qcow2"
    create(base, "qcow2", 4 * MIB)
    scribble(base, "qcow2", 4 * MIB, random.Random(1))
    create(child, "qcow2", 4 * MIB, (), "-b", "base.qcow2", "-F", "qcow2")
    scribble(child, "qcow2", 4 * MIB, random.Random(2), 6)
    history = MemoryHistory(TEN + 3600 * SECOND_NS)
    expected: list[bytes] = []
    images = [BytesImage(base.read_bytes()), BytesImage(child.read_bytes())]
    history.seal("vm1", TEN, {"base.qcow2": images[0], "child.qcow2": images[1]})
    expected.append(hashlib.sha256(truth(child, "qcow2")).digest())
    scribble(base, "qcow2", 4 * MIB, random.Random(3))
    history.seal("vm1", TEN + 60 * SECOND_NS, {"base.qcow2": BytesImage(base.read_bytes())})
    expected.append(hashlib.sha256(truth(child, "qcow2")).digest())
    history.seal("vm1", TEN + 120 * SECOND_NS, drop=["base.qcow2"])
    assert expected[0] != expected[1]
    with mounted(TimeTree(history).root, mount):
        times = [mount / "vm1" / f"2024-05-01T10:0{minute}:00Z" for minute in range(3)]
        for _ in range(2):
            for time, content in zip(times, expected, strict=False):
                assert digest(time / "child.raw") == content
        inodes = {(time / "child.raw").stat().st_ino for time in times[:2]}
        assert len(inodes) == 2
        with pytest.raises(OSError, match="Input/output error") as raised:
            digest(times[2] / "child.raw")
        assert raised.value.errno == errno.EIO
        assert (times[2] / "child.qcow2").read_bytes() == child.read_bytes()


@pytest.mark.parametrize("kind", ["vhd", "vhdx"])
def test_a_differencing_disk_and_its_missing_parent(kind: str, tmp_path: Path):
    disks, mount = tmp_path / "disks", tmp_path / "mount"
    disks.mkdir()
    mount.mkdir()
    base, child = disks / f"Base.{kind}", disks / f"child.{kind}"
    own = {7: b"own".ljust(512, b"!")}
    if kind == "vhd":
        vhd_writer.write_vhd(base, MIB, {3: b"b" * 512, 7: b"b" * 512}, unique_id=b"B" * 16)
        parent = vhd_writer.Parent(b"B" * 16, "base.vhd", ".\\base.vhd")
        vhd_writer.write_vhd(child, MIB, own, unique_id=b"C" * 16, parent=parent)
    else:
        layout, guid = vhdx_writer.Layout(MIB), uuid.UUID(int=5)
        sectors = {3: b"b" * 512, 7: b"b" * 512}
        vhdx_writer.write_vhdx(base, layout, sectors, data_guid=guid)
        above = vhdx_writer.Parent(guid, {"absolute_win32_path": "D:\\VMs\\base.vhdx"})
        vhdx_writer.write_vhdx(child, layout, own, data_guid=uuid.UUID(int=6), parent=above)
    history = MemoryHistory(TEN + 3600 * SECOND_NS)
    files = {path.name: path.read_bytes() for path in (base, child)}
    history.seal("vm1", TEN, files)
    history.seal("vm1", TEN + 60 * SECOND_NS, drop=[base.name])
    with mounted(TimeTree(history).root, mount):
        whole = (mount / "vm1" / "2024-05-01T10:00:00Z" / "child.raw").read_bytes()
        assert len(whole) == MIB
        assert whole[3 * 512 : 4 * 512] == b"b" * 512
        assert whole[7 * 512 : 8 * 512] == own[7]
        lost = mount / "vm1" / "latest"
        for name in ("child.raw", "child.vhdx.raw" if kind == "vhdx" else "child.vhd.raw"):
            with pytest.raises(OSError, match="Input/output error"):
                (lost / name).read_bytes()
        with pytest.raises(OSError, match="Input/output error"):
            list((lost / "child.d").iterdir())
