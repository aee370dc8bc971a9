"""Samba's programs: the server as our child, its users, and whether it answers.

Defined here and only here: `Smbd`, Samba's private folder and its users. Used by the
share's service and its commands. Samba is a program of its own; nothing of it is linked.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from stat import S_IXOTH
from typing import Final

from store.errors import DeniedError, NotFoundError, TimefsError, UsageError
from store.posix.users import is_user
from timefs.share.settings import Settings

_FOLDERS: Final = ("private", "lock", "state", "cache", "pid", "rpc", "log")
_STOP_SECONDS: Final = 10
_TOOL_SECONDS: Final = 60
_SET_CHILD_SUBREAPER: Final = 36


def make_folder(settings: Settings) -> None:
    """Make Samba's private folder.

    Raises:
        DeniedError: it cannot be made.
        UsageError: the users of the share could not reach the mount.
    """
    try:
        settings.state.mkdir(mode=0o755, parents=True, exist_ok=True)
        for name in _FOLDERS:
            mode = 0o700 if name == "private" else 0o755
            (settings.state / name).mkdir(mode=mode, exist_ok=True)
    except OSError as error:
        raise DeniedError(f"{settings.state}: share: {error.strerror}; choose --state") from error
    for folder in settings.mountpoint.parents:
        if folder.exists() and not folder.stat().st_mode & S_IXOTH:
            raise UsageError(
                f"{folder}: share: the users of the share cannot pass it to reach "
                f"{settings.mountpoint}; choose --state elsewhere, or run chmod o+x"
            )


def configure(settings: Settings, configuration: str) -> None:
    """Give Samba its configuration, whole or not at all."""
    fresh = settings.configuration.with_name("smb.conf.new")
    fresh.write_text(configuration)
    fresh.replace(settings.configuration)


def program(name: str) -> str:
    """The path of one of Samba's programs.

    Raises:
        NotFoundError: it is not installed.
    """
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise NotFoundError(f"{name}: not installed; install the packages samba, samba-vfs-modules")
    return path


class Smbd:
    """A Samba server in a session of its own, which ends when this process does."""

    def __init__(self, settings: Settings) -> None:
        """Start it; it reads the configuration that was prepared."""
        # What Samba starts by itself and leaves behind becomes our child, and ends with it.
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._settings = settings
        log = os.open(
            settings.state / "log" / "start.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600
        )
        try:
            self._process = subprocess.Popen(
                [program("smbd"), "--foreground", "--no-process-group",
                 "--configfile", str(settings.configuration)],
                stdin=subprocess.PIPE,  # it ends when this pipe does
                stdout=log,
                stderr=log,
                start_new_session=True,  # Samba signals its whole process group when it ends
                cwd="/",
            )  # fmt: skip
        finally:
            os.close(log)

    @property
    def running(self) -> bool:
        """Whether it still is."""
        return self._process.poll() is None

    def failure(self) -> TimefsError:
        """Why it ended by itself."""
        log = self._settings.state / "log"
        return TimefsError(
            f"smbd: expected it to serve, it ended with {self._process.returncode}; see {log}"
        )

    def reload(self) -> None:
        """Have it read its configuration again."""
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it and all that it started, clients connected or not."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        _end_helpers(self._settings)


def _end_helpers(settings: Settings) -> None:
    """Samba's helpers lead groups of their own; they are our children since their parents ended."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for child in map(int, children):
        if _is_ours(child, settings):
            with suppress(ProcessLookupError, ChildProcessError):
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)


def await_orphan(settings: Settings) -> None:
    """See the end of a server whose share was killed; it ends by itself, or is ended here."""
    process = _orphan(settings)
    for _ in range(_STOP_SECONDS * 10):
        if process is None or not _is_ours(process, settings):
            return
        time.sleep(0.1)
    if process is not None:
        with suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)


def _orphan(settings: Settings) -> int | None:
    with suppress(OSError, ValueError):
        return int((settings.state / "pid" / "smbd.pid").read_text())
    return None


def _is_ours(process: int, settings: Settings) -> bool:
    """Whether a process runs with our configuration, which its arguments name."""
    try:
        arguments = Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
    return os.fsencode(settings.configuration) in arguments


def set_user(settings: Settings, user: str, password: str) -> None:
    """Let a user of this server into the share, or change the password.

    Raises:
        NotFoundError: the server has no such user.
        UsageError: the password is empty or more than one line.
    """
    _known(user)
    if not password or "\n" in password:
        raise UsageError(f"{user}: password: expected one line that is not empty")
    _pdbedit(settings, ["--create", "--password-from-stdin", f"--user={user}"], f"{password}\n" * 2)


def remove_user(settings: Settings, user: str) -> None:
    """Let a user in no more.

    Raises:
        TimefsError: the user was not let in before.
    """
    _pdbedit(settings, ["--delete", f"--user={user}"], "")


def users(settings: Settings) -> list[str]:
    """Who has a password."""
    listed = _pdbedit(settings, ["--list"], "")
    return sorted(line.split(":")[0] for line in listed.splitlines() if line.count(":") >= 2)


def _known(user: str) -> None:
    if not is_user(user):
        raise NotFoundError(
            f"{user}: this server has no such user; run: "
            f"useradd --system --no-create-home --shell /usr/sbin/nologin {user}"
        )


def _pdbedit(settings: Settings, arguments: list[str], said: str) -> str:
    done = subprocess.run(
        [program("pdbedit"), f"--configfile={settings.configuration}", *arguments],
        input=said,
        capture_output=True,
        text=True,
        timeout=_TOOL_SECONDS,
        check=False,
    )
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())
        raise TimefsError(f"pdbedit: {reason or f'ended with {done.returncode}'}")
    return done.stdout
