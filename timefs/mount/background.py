"""Mounting in the background: the command returns when the mount answers, or with its error.

Defined here and only here: `mount_background`. Used by the command line, from the main thread of a
process without other threads. The server is a grandchild in a session of its own; it opens the
repository itself, because threads and database connections do not survive a fork.
"""

import faulthandler
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, NoReturn

import store.errors
from store.errors import TimefsError
from timefs.mount import mounting
from timefs.mount.mounting import BEGAN, ENDED, OpenRoot, mount_foreground
from timefs.mount.points import check_mountpoint

_READY: Final = b"ready"

_TAIL_BYTES: Final = 1 << 20
"""Of the log, in which the beginning of the last mount is looked for."""

log = logging.getLogger(__name__)


def mount_background(
    open_root: OpenRoot,
    mountpoint: Path,
    repository: Path,
    *,
    log_path: Path,
    allow_other: bool = False,
) -> None:
    """Mount and return; the server goes on until it is unmounted and writes to `log_path`.

    `open_root` is called in the folder `/`: it must know absolute paths.

    Raises:
        TimefsError: what went wrong in the server before the mount answered.
    """
    mountpoint = mountpoint.absolute()
    check_mountpoint(mountpoint, repository)
    output = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        if os.fork() == 0:
            _leave_terminal(output)
            _say_how_the_last_ended(mountpoint, log_path)
            _serve(writer, open_root, mountpoint, repository.absolute(), allow_other)
        os._exit(0)
    os.close(output)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    if said != _READY:
        raise _error_of(said.decode(errors="replace"), mountpoint, log_path)


def _leave_terminal(output: int) -> None:
    """Standard input from nowhere, output and errors to the log, no folder kept busy."""
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _say_how_the_last_ended(mountpoint: Path, log_path: Path) -> None:
    """A server that was killed outright could not say so itself."""
    start = max(0, log_path.stat().st_size - _TAIL_BYTES)
    with log_path.open(errors="replace") as file:
        file.seek(start)
        said = [line for line in file if f"{mountpoint}: " in line]
    last = next((line for line in reversed(said) if BEGAN in line or ENDED in line), "")
    process = last.rstrip().rpartition(BEGAN)[2]
    if BEGAN in last and _has_ended(process):
        log.warning("%s: process %s ended without a word: killed?", mountpoint, process)


def _has_ended(process: str) -> bool:
    """Whether a process is gone, or waits for its parent to be told."""
    try:
        state = Path("/proc", process, "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def _serve(
    writer: int, open_root: OpenRoot, mountpoint: Path, repository: Path, allow_other: bool
) -> NoReturn:
    """The server's life; says once how it began and never returns into its parent's code."""
    code = 1
    faulthandler.enable(2)
    logging.getLogger(mounting.__name__).setLevel(logging.INFO)
    try:
        code = mount_foreground(
            open_root,
            mountpoint,
            repository,
            allow_other=allow_other,
            ready=lambda: _say(writer, _READY),
        )
    except TimefsError as error:
        _say(writer, f"{type(error).__name__}\n{error}".encode())
    except BaseException:
        log.exception("%s: mount: unexpected error", mountpoint)
        raise
    finally:
        os._exit(code)


def _say(writer: int, what: bytes) -> None:
    """Tell the waiting command; it may be gone, and after the first time it is."""
    with suppress(OSError):
        os.write(writer, what)
        os.close(writer)


def _error_of(said: str, mountpoint: Path, log_path: Path) -> TimefsError:
    name, _, message = said.partition("\n")
    kind = getattr(store.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, TimefsError):
        return kind(message)
    return TimefsError(f"{mountpoint}: mount: the server ended early; see {log_path}")
