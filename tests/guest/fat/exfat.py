"""exfat-fuse as the oracle of exFAT volumes, and what writes them."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.guest.kernel import run
from tests.loop_devices import need_loop_devices


@contextmanager
def exfat_mount(volume: Path, point: Path, options: str) -> Generator[Path]:
    need_loop_devices()
    point.mkdir(exist_ok=True)
    device = run("losetup", "--find", "--show", volume).decode().strip()
    try:
        run("env", "TZ=UTC", "mount.exfat-fuse", "-o", options, device, point)
        try:
            yield point
        finally:
            run("umount", point)
            wait_until_closed(device)
    finally:
        run("losetup", "--detach", device)


def wait_until_closed(device: str) -> None:
    """The server behind a mount ends a moment after it, and writes until then."""
    for _ in range(100):
        holders = subprocess.run(["fuser", "-s", device], timeout=30, check=False)
        if holders.returncode != 0:
            return
        subprocess.run(["sleep", "0.05"], timeout=30, check=True)
    raise AssertionError(f"{device} is still in use")
