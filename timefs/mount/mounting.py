"""Mounting: what the command line calls to show a tree at a folder and to take it away.

Defined here and only here: `mounted`, `leave`, `mount_foreground` and `unmount`. For the background
see timefs.mount.background. Call from the main thread, except `mounted`, which any thread may use.
"""

import gc
import logging
import os
import signal
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final

from store.errors import BusyError, NotFoundError, UsageError
from timefs.mount.core import FileSystem
from timefs.mount.fuse.mounting import attach, detach
from timefs.mount.fuse.server import Server
from timefs.mount.points import FILE_SYSTEM_TYPE, absolute, check_mountpoint, mount_at
from timefs.mount.portable import PortableServer, mounted_portably
from timefs.tree import Folder

OpenRoot = Callable[[], AbstractContextManager[Folder]]
"""Opens what is to be shown; called in the process that serves, and left when that ends."""

INTERRUPTED: Final = 130
"""Exit code after SIGINT."""

READ_AHEAD_KIB: Final = 1024
"""The largest READ. Measured with frames of 32 KiB, medians of 12: in order 962, 1062, 1097 and
1111 MiB/s at 128, 256, 512 and 1024. What more would give and cost: docs/adr/0019."""

YOUNG_OBJECTS_MAX: Final = 40_000
"""How many objects are made before cycles are looked for among them. Python's 700 looked through
the nodes that the kernel holds again and again, and took 14 % of a first listing; 20,000 took 8 %
of one of 10,000 names. A closed NTFS volume is such a cycle: some 250 objects, a quarter MiB."""

BEGAN: Final = "mounted by process "
ENDED: Final = "the mount ended: "
"""What the log says of a mount."""

_LEAVE_SECONDS: Final = 1.0
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

log = logging.getLogger(__name__)


class StoppedError(Exception):
    """A signal asks the serving process to end; never leaves this module."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = INTERRUPTED if number == signal.SIGINT else 0


def threads_default() -> int:
    """Threads that serve a mount of a local store."""
    return max(2, len(os.sched_getaffinity(0)))


@contextmanager
def mounted(
    root: Folder,
    mountpoint: Path,
    repository: Path | None = None,
    *,
    threads: int | None = None,
    allow_other: bool = False,
) -> Generator[Server, None, None]:
    """Show `root` at a folder as long as the block runs, or until somebody unmounts it.

    Raises:
        TimefsError: it cannot be mounted.
    """
    mountpoint = absolute(mountpoint)
    device = attach(mountpoint, allow_other=allow_other)
    server = Server(device, FileSystem(root, repository), threads or threads_default())
    try:
        server.negotiate()
        _read_further_ahead(mountpoint)  # each file keeps what holds when it is opened
        server.start()
        yield server
    finally:
        if server.serving:
            leave(mountpoint)
        server.wait(_LEAVE_SECONDS)


def leave(mountpoint: Path) -> None:
    """Unmount; who still uses the mount gets errors once this process has ended."""
    with suppress(NotFoundError):
        try:
            detach(mountpoint)
        except BusyError:
            detach(mountpoint, lazily=True)


def _read_further_ahead(mountpoint: Path) -> None:
    """Let the kernel read further ahead than its 128 KiB; it takes that from root alone."""
    mount = mount_at(mountpoint)
    if mount is not None:
        with suppress(OSError):
            setting = Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb")
            setting.write_text(f"{READ_AHEAD_KIB}\n")


def mount_foreground(
    open_root: OpenRoot,
    mountpoint: Path,
    repository: Path,
    *,
    allow_other: bool = False,
    portable: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> int:
    """Mount and serve until unmounted or signalled; answers the exit code.

    `portable` goes through libfuse or its like. `ready` is called when the mount answers.
    How it began and ended is logged.

    Raises:
        TimefsError: it cannot be mounted.
    """
    check_mountpoint(mountpoint, repository)
    with _signals_held(), open_root() as root:
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS_MAX)
        try:
            show = mounted_portably if portable else mounted
            with show(root, mountpoint, repository, allow_other=allow_other) as server:
                log.info("%s: %s%d", mountpoint, BEGAN, os.getpid())
                ready()
                _wait(server)
        except StoppedError as stopped:
            log.info("%s: %sby %s", mountpoint, ENDED, stopped)
            return stopped.exit_code
        log.info("%s: %sit was unmounted", mountpoint, ENDED)
    return 0


def unmount(mountpoint: Path) -> None:
    """Take a mount of ours away, alive or dead.

    Raises:
        NotFoundError: nothing is mounted there.
        UsageError: what is mounted there is not ours.
        BusyError: it is in use.
        DeniedError: it is another user's.
    """
    mount = mount_at(absolute(mountpoint))
    if mount is None:
        raise NotFoundError(f"{mountpoint}: cannot unmount: nothing is mounted there")
    if mount.file_system_type != FILE_SYSTEM_TYPE:
        raise UsageError(
            f"{mountpoint}: cannot unmount: expected a mount of timefs, "
            f"got one of {mount.file_system_type}"
        )
    detach(mount.path)


@contextmanager
def _signals_held() -> Generator[None, None, None]:
    """Keep signals for `_wait`: one that ended us half way would leave a dead mount behind."""
    before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        for number in _STOP_SIGNALS:
            if number != signal.SIGHUP or before[number] != signal.SIG_IGN:  # nohup
                signal.signal(number, _stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _wait(server: Server | PortableServer) -> None:
    """Wait for the end of the mount, or for a signal."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
        server.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)


def _stop(number: int, _frame: FrameType | None) -> None:
    """End `_wait`; a second signal must not end the clean-up."""
    for ignored in _STOP_SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    raise StoppedError(number)
