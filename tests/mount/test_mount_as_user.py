"""Mounting as an ordinary user, through the set-uid program fusermount3."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from timefs.mount.points import absolute, mount_at

ROOT = Path(__file__).parents[2]
DEVICE = Path("/dev/fuse")
NOBODY = 65534
pytestmark = pytest.mark.system

SCRIPT = """
import os, sys
from pathlib import Path
from store.errors import BusyError
from tests.timetree.memory_history import MemoryHistory
from timefs.mount.mounting import mounted, unmount
from timefs.mount.points import check_mountpoint
from timefs.timetree import TimeTree
point, user = Path(sys.argv[1]), int(sys.argv[2])
if user != os.geteuid():  # only now: the project may lie where that user cannot read
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
os.chdir("/")
history = MemoryHistory(2 * 10**9)
history.seal("vm1", 10**9, {"disk.bin": bytes(range(256)) * 8192})
check_mountpoint(point, Path("/nowhere"))
with mounted(TimeTree(history).root, point) as server:
    assert (point / "vm1/latest/disk.bin").read_bytes() == bytes(range(256)) * 8192
    assert os.stat(point / "vm1/latest/disk.bin").st_uid == os.getuid() != 0
    held = os.open(point / "vm1", os.O_RDONLY)
    try:
        unmount(point)
    except BusyError as error:
        assert "in use" in str(error)
    os.close(held)
    unmount(point)
    server.wait(10)
    assert not server.serving
assert os.listdir(point) == []
print("done")
"""


@pytest.fixture
def user() -> Generator[int, None, None]:
    """The number of an ordinary user who may use /dev/fuse."""
    if shutil.which("fusermount3") is None:
        pytest.skip("fusermount3 is not installed")
    if os.geteuid() != 0:
        if not os.access(DEVICE, os.R_OK | os.W_OK):
            pytest.skip("/dev/fuse is not open to this user")
        yield os.geteuid()
        return
    mode = stat.S_IMODE(DEVICE.stat().st_mode)
    DEVICE.chmod(0o666)
    try:
        yield NOBODY
    finally:
        DEVICE.chmod(mode)


def test_an_ordinary_user_mounts_reads_and_unmounts(user: int, tmp_path: Path):
    for folder in (tmp_path, *tmp_path.parents[:2]):  # so that the user reaches it
        folder.chmod(0o755)
    mountpoint = tmp_path / "mount"
    mountpoint.mkdir()
    if user != os.geteuid():
        os.chown(mountpoint, user, user)
    command = [sys.executable, "-B", "-c", SCRIPT, str(mountpoint), str(user)]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, timeout=60, check=False, text=True
    )
    if mount_at(absolute(mountpoint)) is not None:
        subprocess.run(["umount", "-l", mountpoint], timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
