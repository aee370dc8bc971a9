"""The share's life: the mount, Samba on it, and a clean end of both.

Defined here and only here: `serve` and the file by which others see that it runs. Used by the
command line, from the main thread; `is_served` from any.
"""

import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Final, Self

from store.errors import BusyError, DeniedError, TimefsError
from store.posix.locks import lock_file
from timefs.mount.fuse.server import Server
from timefs.mount.mounting import INTERRUPTED, leave, mounted
from timefs.mount.points import check_mountpoint, is_dead
from timefs.share.samba import Smbd, await_orphan, configure, make_folder, program
from timefs.share.settings import Settings, private_configuration, share_name
from timefs.share.view import view
from timefs.timetree import TimeTree

STATE_FILE: Final = "share.json"
"""In the share's private folder while it runs."""

LOCK_FILE: Final = "share.lock"

_LOOK_SECONDS: Final = 1.0
"""How often the mount, Samba and the list of machines are looked at."""

_START_SECONDS: Final = 60

log = logging.getLogger(__name__)

OpenTree = Callable[[], AbstractContextManager[TimeTree]]
"""Opens the history that is to be shared; left when the share ends."""


def serve(
    settings: Settings,
    open_tree: OpenTree,
    repository: Path,
    *,
    with_samba: bool = True,
    ready: Callable[[], None] = lambda: None,
) -> int:
    """Mount the history, have Samba serve it until a signal comes; answers the exit code.

    `with_samba` is false for an smbd of the operator's own, which includes `sections`.

    Raises:
        TimefsError: it cannot be shared, or Samba or the mount ended by itself.
    """
    settings.check()
    if os.geteuid() != 0:
        raise DeniedError(
            "share: expected to be root: Samba serves each user with the user's rights"
        )
    if with_samba:
        program("smbd")
    with (
        _Signals() as signals,
        open_tree() as tree,
        _alone(settings, with_samba=with_samba),
        _mounted(settings, tree, repository) as server,
    ):
        if with_samba:
            _run_samba(settings, tree, server, signals, ready)
        else:
            ready()
            while server.serving and not signals.wait(_LOOK_SECONDS):
                pass
    return signals.exit_code


class _Signals:
    """Signals that ask for the end; they interrupt nothing, so nothing is left half done."""

    def __init__(self) -> None:
        self._came = threading.Event()
        self._before: dict[signal.Signals, object] = {}
        self.exit_code = 0

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._end)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _end(self, number: int, _frame: FrameType | None) -> None:
        self.exit_code = INTERRUPTED if number == signal.SIGINT else 0
        self._came.set()

    def wait(self, seconds: float) -> bool:
        """Whether one came, after at most so long."""
        return self._came.wait(seconds)


@contextmanager
def _alone(settings: Settings, *, with_samba: bool) -> Generator[None]:
    """One share of a private folder at a time; others see by a file that it runs."""
    make_folder(settings)
    lock = os.open(settings.state / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    state = settings.state / STATE_FILE
    try:
        if not lock_file(lock, wait=False):
            raise BusyError(f"{settings.state}: already shared; see timefs status")
        state.write_text(
            json.dumps(
                {
                    "pid": os.getpid(),
                    "addresses": list(settings.addresses),
                    "port": settings.port if with_samba else None,
                    "mountpoint": str(settings.mountpoint),
                    "acl": settings.rights.value,
                }
            )
        )
        yield
        state.unlink(missing_ok=True)
    finally:
        os.close(lock)


def is_served(settings: Settings) -> bool:
    """Whether a process shares this private folder now."""
    try:
        lock = os.open(settings.state / LOCK_FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not lock_file(lock, wait=False, shared=True)
    finally:
        os.close(lock)


@contextmanager
def _mounted(settings: Settings, tree: TimeTree, repository: Path) -> Generator[Server]:
    """The view of the history, mounted; what a killed share left is taken away first."""
    mountpoint = settings.mountpoint
    await_orphan(settings)
    if is_dead(mountpoint):
        leave(mountpoint)
    mountpoint.mkdir(parents=True, exist_ok=True)
    check_mountpoint(mountpoint, repository)
    root = view(tree.root, settings.rights)
    with mounted(root, mountpoint, repository, allow_other=True) as server:
        yield server


def _run_samba(
    settings: Settings,
    tree: TimeTree,
    server: Server,
    signals: _Signals,
    ready: Callable[[], None],
) -> None:
    machines = tree.history.machines()
    _say_unshared(machines)
    configure(settings, private_configuration(settings, machines))
    smbd = Smbd(settings)
    try:
        if _answers(settings, smbd, signals):
            ready()
        while not signals.wait(_LOOK_SECONDS):
            if not smbd.running:
                raise smbd.failure()
            if not server.serving:
                raise TimefsError(f"{settings.mountpoint}: share: somebody took the mount away")
            found = tree.history.machines()
            if found != machines:
                machines = found
                _say_unshared(machines)
                configure(settings, private_configuration(settings, machines))
                smbd.reload()
    finally:
        smbd.stop()


def _answers(settings: Settings, smbd: Smbd, signals: _Signals) -> bool:
    """Wait until Samba takes connections; false if a signal came first."""
    address = settings.addresses[0]
    for _ in range(int(_START_SECONDS * 10)):
        if not smbd.running:
            raise smbd.failure()
        with suppress(OSError), socket.create_connection((address, settings.port), 5):
            return True
        if signals.wait(0.1):
            return False
    raise TimefsError(f"smbd: expected it to answer at {address}:{settings.port}, it does not")


def _say_unshared(machines: Sequence[str]) -> None:
    for machine in machines:
        if share_name(machine) is None:
            log.warning("%s: no share can have that name; it is in the share history", machine)
