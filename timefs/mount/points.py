"""Mount points: what is mounted where, and whether a folder may become one.

Defined here and only here: `Mount`, `mount_at`, `absolute`, `is_dead` and `check_mountpoint`. Used
by timefs.mount.mounting. No state; may be called from any thread.
"""

import errno
import os
import re
from pathlib import Path
from stat import S_ISDIR
from typing import Final, NamedTuple

from store.errors import BusyError, DeniedError, NotFolderError, NotFoundError, UsageError

FILE_SYSTEM_TYPE: Final = "fuse.timefs"

_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """One mount of this mount namespace."""

    path: Path
    file_system_type: str
    device: str
    """major:minor"""


def mount_at(mountpoint: Path) -> Mount | None:
    """The mount that is on top at a folder, or None.

    Source: proc(5), /proc/pid/mountinfo.
    """
    found = None
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        *_, device, _, path, _ = line.split(b" ")[:6]
        file_system_type = line.partition(b" - ")[2].split(b" ")[0]
        if _ESCAPE.sub(lambda octal: bytes([int(octal[1], 8)]), path) == os.fsencode(mountpoint):
            found = Mount(mountpoint, file_system_type.decode(), device.decode())
    return found


def absolute(mountpoint: Path) -> Path:
    """The path by which the kernel knows a mount point; known even if its server has died."""
    return Path(os.path.realpath(mountpoint))


def is_dead(mountpoint: Path) -> bool:
    """Whether a mount is there whose server has died."""
    try:
        os.statvfs(mountpoint)  # stat may be answered from what the kernel remembers
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def check_mountpoint(mountpoint: Path, repository: Path) -> None:
    """Refuse a folder at which nothing can be mounted.

    Raises:
        NotFoundError: it does not exist.
        NotFolderError: it is not a folder.
        BusyError: something is mounted there already, alive or dead.
        UsageError: it lies in the repository, or the repository in it.
        DeniedError: it cannot be reached.
    """
    try:
        is_folder = S_ISDIR(mountpoint.stat().st_mode)
        os.statvfs(mountpoint)  # which the kernel never answers for a server that has died
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            raise BusyError(
                f"{mountpoint}: a mount whose server has died is still there; "
                f"run: timefs unmount {mountpoint}"
            ) from error
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFoundError(
                f"{mountpoint}: mount point: expected a folder, there is none; run mkdir first"
            ) from error
        raise DeniedError(f"{mountpoint}: mount point: {error.strerror}") from error
    if not is_folder:
        raise NotFolderError(f"{mountpoint}: mount point: expected a folder, got a file")
    if mount_at(absolute(mountpoint)) is not None:
        raise BusyError(
            f"{mountpoint}: something is mounted there already; "
            f"run: timefs unmount {mountpoint}, or mount elsewhere"
        )
    point, kept = absolute(mountpoint), absolute(repository)
    if point.is_relative_to(kept) or kept.is_relative_to(point):
        raise UsageError(
            f"{mountpoint}: mount point: expected a folder apart from the repository {repository}"
        )
