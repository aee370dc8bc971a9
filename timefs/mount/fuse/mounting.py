"""Attaching /dev/fuse to a folder and detaching it, as root or as an ordinary user.

Defined here and only here: `attach` and `detach`. Used by timefs.mount.mounting. Root calls
mount(2); others ask the set-uid program fusermount3, which opens the device, mounts, and passes the
descriptor back over a socket, and later fusermount3 or umount to unmount.
"""

import ctypes
import errno
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final

from store.errors import BusyError, DeniedError, NotFoundError, TimefsError
from timefs.mount.fuse.worker import READ_BYTES_MAX

_MS_RDONLY: Final = 1
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
_SET_UID_SECONDS: Final = 30
_MTAB: Final = Path("/etc/mtab")

_OPTIONS: Final = f"max_read={READ_BYTES_MAX}"
_SHARED_OPTIONS: Final = f"{_OPTIONS},allow_other,default_permissions"
"""Where others may look, a guest's permissions hold; to whoever mounts for himself they are shown
and do not bind: the repository with all its bytes is his."""


def attach(mountpoint: Path, *, allow_other: bool) -> int:
    """Mount at a folder; answers the descriptor on which the kernel sends requests.

    Raises:
        DeniedError: this user may not mount here.
        TimefsError: the kernel or fusermount3 refuses for another reason.
    """
    options = _SHARED_OPTIONS if allow_other else _OPTIONS
    if os.geteuid() == 0:
        return _attach_as_root(mountpoint, options)
    return _attach_as_user(mountpoint, options)


def _attach_as_root(mountpoint: Path, options: str) -> int:
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise DeniedError(f"/dev/fuse: {error.strerror}; is the fuse module loaded?") from error
    data = f"fd={device},rootmode=40000,user_id=0,group_id=0,{options}".encode()
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    libc = ctypes.CDLL(None, use_errno=True)
    target = os.fsencode(mountpoint)
    if libc.mount(b"timefs", target, b"fuse.timefs", ctypes.c_ulong(flags), data) == 0:
        return device
    code = ctypes.get_errno()
    os.close(device)
    raise _error_of(code, f"{mountpoint}: cannot mount")


def _attach_as_user(mountpoint: Path, options: str) -> int:
    arguments = f"ro,nosuid,nodev,fsname=timefs,subtype=timefs,{options}"
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with theirs, ours:
        descriptor = theirs.fileno()
        words = ["-o", arguments, "--", str(mountpoint)]
        _ask("fusermount3", words, f"{mountpoint}: cannot mount", descriptor)
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        raise TimefsError(f"{mountpoint}: cannot mount: fusermount3 passed no descriptor back")
    os.set_inheritable(descriptors[0], False)
    return descriptors[0]


def detach(mountpoint: Path, *, lazily: bool = False) -> None:
    """Unmount; `lazily` takes the mount out of the tree at once though it is still in use.

    Raises:
        BusyError: something in the mount is open, or is somebody's working folder.
        NotFoundError: it is not a mount point.
        DeniedError: the mount is another user's.
    """
    if os.geteuid() == 0:
        flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazily else 0)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.umount2(os.fsencode(mountpoint), flags) != 0:
            raise _error_of(ctypes.get_errno(), f"{mountpoint}: cannot unmount")
        return
    what, point = f"{mountpoint}: cannot unmount", ["--", str(mountpoint)]
    if _MTAB.exists():
        _ask("fusermount3", ["-u", *(["-z"] if lazily else []), *point], what, None)
    else:  # a minimal system lacks it and fusermount3 then refuses; umount asks the kernel
        _ask("umount", [*(["-l"] if lazily else []), *point], what, None)


def _ask(name: str, arguments: list[str], what: str, descriptor: int | None) -> None:
    """Have a set-uid program do what an ordinary user may not."""
    program = shutil.which(name)
    if program is None:
        raise DeniedError(f"{what}: {name} is not installed; install the package fuse3")
    environment = dict(os.environ, LC_ALL="C")
    if descriptor is not None:
        environment["_FUSE_COMMFD"] = str(descriptor)
    try:
        done = subprocess.run(
            [program, *arguments],
            env=environment,
            pass_fds=[] if descriptor is None else [descriptor],
            capture_output=True,
            timeout=_SET_UID_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BusyError(f"{what}: {name} did not answer") from error
    if done.returncode == 0:
        return
    said = " ".join(done.stderr.decode(errors="replace").split())
    if "busy" in said:
        raise _error_of(errno.EBUSY, what)
    if "not found in" in said or "not mounted" in said:
        raise _error_of(errno.EINVAL, what)
    raise DeniedError(f"{what}: {said or f'{name} gave no reason'}")


def _error_of(code: int, what: str) -> TimefsError:
    if code == errno.EBUSY:
        return BusyError(f"{what}: in use; close what is open in it and leave its folders")
    if code in (errno.EINVAL, errno.ENOENT):
        return NotFoundError(f"{what}: not a mount point")
    if code in (errno.EPERM, errno.EACCES):
        return DeniedError(f"{what}: {os.strerror(code).lower()}")
    return TimefsError(f"{what}: {os.strerror(code).lower()}")
