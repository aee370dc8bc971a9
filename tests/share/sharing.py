"""A share under test, its users, and smbclient as one of its clients."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.share.wire import Tree, tree
from timefs.mount.fuse.mounting import detach
from timefs.mount.points import is_dead
from timefs.share.samba import set_user
from timefs.share.settings import Settings
from timefs.share.view import Rights

ROOT = Path(__file__).parents[2]
READER, ADMINISTRATOR = "daemon", "games"
"""Users that every Debian has."""
PASSWORD = "a long password"
SECONDS = 60
TOOLS = ("smbd", "smbclient", "pdbedit")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Share(NamedTuple):
    """A running share."""

    process: "subprocess.Popen[str]"
    settings: Settings

    def run(self, share: str, commands: str, user: str | None = READER) -> str:
        """What smbclient says; a refusal is part of it."""
        done = self.client(share, commands, user)
        return done.stdout + done.stderr

    def client(
        self, share: str, commands: str, user: str | None = READER, more: Sequence[str] = ()
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.command(user), *more, f"//127.0.0.1/{share}", "-c", commands],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip

    def command(self, user: str | None) -> list[str]:
        login = ["-N"] if user is None else ["-U", f"{user}%{PASSWORD}"]
        return ["smbclient", "-p", str(self.settings.port), *login, "-m", "SMB3"]

    def listed(self, user: str | None) -> str:
        """The list of shares."""
        command = [*self.command(user), "-L", "127.0.0.1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        return done.stdout

    def tree(self, share: str, user: str = READER) -> AbstractContextManager[Tree]:
        """The share as a client that stays connected."""
        return tree(self.settings.port, share, user, PASSWORD)

    def read(self, share: str, path: str, folder: Path, user: str = READER) -> bytes:
        """The bytes of a file of the share."""
        copy = folder / "copy"
        copy.unlink(missing_ok=True)
        said = self.run(share, f'get "{path}" {copy}', user)
        assert copy.exists(), said
        return copy.read_bytes()

    def names(self, share: str, folder: str) -> list[str]:
        """What a listing shows."""
        said = self.run(share, f'cd "{folder}"; ls')
        assert "NT_STATUS" not in said, said
        lines = [line[2:36].rstrip() for line in said.splitlines() if line.startswith("  ")]
        return sorted(name for name in lines if name not in (".", ".."))

    def until_listed(self, share: str) -> bool:
        """Wait for the share of a new machine."""
        return until_true(lambda: f"\t{share} " in self.listed(READER))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.process.communicate(timeout=SECONDS)
        return self.process.returncode

    def smbd(self) -> int:
        """The process id of the server's first process."""
        return int((self.settings.state / "pid" / "smbd.pid").read_text())


def until_true(seen: Callable[[], bool]) -> bool:
    """Whether something comes true in good time."""
    for _ in range(SECONDS * 5):
        if seen():
            return True
        time.sleep(0.2)
    return False


def check_tools() -> None:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not Path("/dev/fuse").exists():
        pytest.skip("no /dev/fuse here")


@contextmanager
def sharing(
    folder: Path,
    command: list[str],
    settings: Settings,
) -> Generator[Share]:
    """A share run by a command that says `ready` or `sharing` when it is."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(("ready", "sharing"))
        for user in (READER, ADMINISTRATOR):
            set_user(settings, user, PASSWORD)
        yield Share(process, settings)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=SECONDS)
        if is_dead(settings.mountpoint):
            detach(settings.mountpoint, lazily=True)


@contextmanager
def open_folder() -> Generator[Path]:
    """A temporary folder that the users of the share can pass, as pytest's cannot be."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        yield folder


@contextmanager
def sharing_memory(folder: Path, rights: Rights) -> Generator[Share]:
    """The small history of `serve_memory`."""
    check_tools()
    state = folder / "state"
    administrators = (ADMINISTRATOR,)
    settings = Settings(
        ("127.0.0.1",), free_port(), rights, (), administrators, state, state / "mount"
    )
    module = "tests.share.serve_memory"
    command = [sys.executable, "-m", module, str(state), str(settings.port), rights.value]
    with sharing(folder, [*command, *administrators], settings) as share:
        yield share
