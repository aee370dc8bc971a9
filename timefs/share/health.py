"""Whether a share works, seen from outside: its process, its mount, and Samba.

Defined here and only here: `Health` and `health`. Used by `timefs status`. No state.
"""

import json
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from timefs.share.samba import program
from timefs.share.service import STATE_FILE, is_served
from timefs.share.settings import Settings

_ANSWER_SECONDS: Final = 5


class Health(NamedTuple):
    """What was found."""

    running: bool
    """Whether a process shares the history."""
    mounted: bool
    """Whether its mount answers."""
    answering: bool
    """Whether Samba takes connections; true as well where the share has no Samba of its own."""
    clients: int
    address: str
    port: int | None
    """None: an smbd of the operator's own serves it."""

    @property
    def well(self) -> bool:
        """Whether people reach the history."""
        return self.running and self.mounted and self.answering


def health(settings: Settings) -> Health | None:
    """The share of a private folder; None where there never was one, or it was ended cleanly."""
    try:
        state = json.loads((settings.state / STATE_FILE).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    address, port = state["addresses"][0], state["port"]
    return Health(
        running=is_served(settings),
        mounted=_mount_answers(Path(state["mountpoint"])),
        answering=port is None or _takes_connections(address, port),
        clients=0 if port is None else _clients(settings),
        address=address,
        port=port,
    )


def _mount_answers(mountpoint: Path) -> bool:
    """Asked by another process: a mount that hangs must not hang us."""
    with suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            ["stat", "--file-system", "--format=%T", mountpoint],
            capture_output=True,
            timeout=_ANSWER_SECONDS,
            check=False,
        )
        return done.returncode == 0 and done.stdout.strip() == b"fuseblk"
    return False


def _takes_connections(address: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((address, port), _ANSWER_SECONDS):
        return True
    return False


def _clients(settings: Settings) -> int:
    """Sessions that Samba has open."""
    done = subprocess.run(
        [program("smbstatus"), f"--configfile={settings.configuration}", "--processes", "--json"],
        capture_output=True,
        timeout=_ANSWER_SECONDS * 2,
        check=False,
    )
    with suppress(json.JSONDecodeError):
        found: dict[str, Any] = json.loads(done.stdout)
        return len(found.get("sessions", {}))
    return 0
