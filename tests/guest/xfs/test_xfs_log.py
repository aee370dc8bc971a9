"""The state of a volume is what its log says: unmounted, or not, as the kernel judges it."""

import fcntl
import os
import struct
import subprocess
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.guest.kernel import kernel_mount, need, run
from tests.loop_devices import need_loop_devices
from timefs.guest.xfs import open_volume
from timefs.guest.xfs.log import CLEAN, ELSEWHERE, NOT_UNMOUNTED, UNREADABLE
from timefs.guest.xfs.superblock import read_superblock

pytestmark = [pytest.mark.system, pytest.mark.root]

SHUTDOWN = 0x8004587D
"""XFS_IOC_GOINGDOWN: from this moment on nothing more is written to the device."""
FLUSH_LOG = 1
STATE = b"user.timefs.volume_state"


def made(folder: Path, *options: str) -> Path:
    need("mkfs.xfs", file_system="xfs")
    volume = folder / "volume"
    with volume.open("wb") as file:
        file.truncate(320 << 20)
    run("mkfs.xfs", "-q", *options, volume)
    return volume


def state(volume: Path) -> str:
    descriptor = os.open(volume, os.O_RDONLY)
    try:
        root = open_volume(DescriptorImage(descriptor), b"id").root
        return dict(root.xattrs())[STATE].decode()
    finally:
        os.close(descriptor)


def kernel_would_replay(volume: Path, point: Path) -> bool:
    """A kernel that may not write refuses a volume whose log holds changes."""
    need_loop_devices()
    device = run("losetup", "--find", "--show", "--read-only", volume).decode().strip()
    try:
        mounting = ["mount", "-o", "ro", device, str(point)]
        done = subprocess.run(mounting, capture_output=True, timeout=60, check=False)
        if done.returncode == 0:
            run("umount", point)
        return done.returncode != 0
    finally:
        run("losetup", "--detach", device)


def cut_off(point: Path) -> None:
    descriptor = os.open(point, os.O_RDONLY)
    fcntl.ioctl(descriptor, SHUTDOWN, struct.pack("I", FLUSH_LOG))
    os.close(descriptor)


def fill(top: Path, files: int) -> None:
    for number in range(files):
        (top / f"{'name' * 20}-{number}").write_bytes(b"x")


@pytest.mark.parametrize("options", ["", "-l size=64m", "-l sunit=512", "-b size=1024"])
def test_a_volume_that_was_unmounted_is_clean_and_one_in_use_is_not(options: str, tmp_path: Path):
    volume, point = made(tmp_path, *options.split()), tmp_path / "point"
    assert state(volume) == CLEAN  # as mkfs.xfs left it
    for round_number in range(3):
        with kernel_mount(volume, point):
            (point / str(round_number)).mkdir()
            fill(point / str(round_number), 300)
        assert not kernel_would_replay(volume, point)
        assert state(volume) == CLEAN
    with kernel_mount(volume, point):
        fill(point, 50)
        cut_off(point)
    assert kernel_would_replay(volume, point)
    assert state(volume) == NOT_UNMOUNTED
    with kernel_mount(volume, point):
        pass
    assert not kernel_would_replay(volume, point)
    assert state(volume) == CLEAN


def test_a_log_that_went_round_is_judged_at_its_newest_end(tmp_path: Path):
    volume, point = made(tmp_path, "-l", f"size={1400 << 12}", "--unsupported"), tmp_path / "point"
    for round_number in range(6):
        with kernel_mount(volume, point):
            folder = point / str(round_number)
            folder.mkdir()
            for _ in range(12):
                fill(folder, 500)
                for path in folder.iterdir():
                    path.unlink()
                subprocess.run(["sync", "-f", point], timeout=60, check=True)
        assert (state(volume) == CLEAN) != kernel_would_replay(volume, point), round_number
        with kernel_mount(volume, point):
            fill(point, 200 + round_number)
            cut_off(point)
        assert (state(volume) == CLEAN) != kernel_would_replay(volume, point), round_number
        with kernel_mount(volume, point):
            pass


def test_a_log_that_was_wiped_is_not_said_to_be_clean(tmp_path: Path):
    volume, point = made(tmp_path), tmp_path / "point"
    with kernel_mount(volume, point):
        fill(point, 5)
    descriptor = os.open(volume, os.O_RDWR)
    try:
        superblock = read_superblock(DescriptorImage(descriptor))
        os.pwrite(descriptor, bytes(superblock.log_bytes), superblock.place(superblock.log, "log"))
    finally:
        os.close(descriptor)
    assert kernel_would_replay(volume, point)  # it refuses such a volume
    assert state(volume) == UNREADABLE


def test_a_log_elsewhere_is_said_to_be_elsewhere(tmp_path: Path):
    need("mkfs.xfs")
    volume, log = tmp_path / "volume", tmp_path / "log"
    for path in (volume, log):
        with path.open("wb") as file:
            file.truncate(320 << 20)
    run("mkfs.xfs", "-q", "-l", f"logdev={log},size=64m", volume)
    assert state(volume) == ELSEWHERE


def test_a_log_beyond_the_volume_cannot_be_read(tmp_path: Path):
    need("mkfs.xfs")
    volume = tmp_path / "volume"
    with volume.open("wb") as file:
        file.truncate(320 << 20)
    run("mkfs.xfs", "-q", "-m", "crc=0", volume)
    content = bytearray(volume.read_bytes()[:512])
    content[96:100] = (0x7FFFFFFF).to_bytes(4, "big")
    with volume.open("r+b") as file:
        file.write(content)
    assert state(volume) == UNREADABLE
