"""SQLite's errors about the index as ours: what is damage, and what is only the place it is in.

Defined here and only here. Used by store.index.index. Thread-safe.
"""

import os
from pathlib import Path
from typing import Final

import apsw

from store.errors import BusyError, DamagedError, FullError, TimefsError

WRITE_ROOM_BYTES: Final = 8 << 20
"""Room that a change of the index needs at least."""

OPEN_ROOM_BYTES: Final = 1 << 20
"""Room that opening it needs when no other process has it open."""

_PLACE: Final = (apsw.CantOpenError, apsw.IOError, apsw.PermissionsError, apsw.ReadOnlyError)
_ELSEWHERE: Final = "name another place with --cache DIR"


def index_error(path: Path, error: apsw.Error) -> TimefsError:
    """What SQLite says, as one of ours."""
    text = f"index {path}: {error}"
    if isinstance(error, apsw.FullError) or (isinstance(error, apsw.IOError) and _full(path)):
        return FullError(f"{text}; free space there, or {_ELSEWHERE}")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return BusyError(f"{text}: another process is writing it; try again")
    if isinstance(error, _PLACE):
        return TimefsError(f"{text}; {_ELSEWHERE}")
    return DamagedError(f"{text}; run `timefs rebuild` to make it again from the packs")


def _full(path: Path, room_bytes: int = OPEN_ROOM_BYTES) -> bool:
    status = os.statvfs(path.parent)
    return status.f_bavail * status.f_frsize < room_bytes


def need_room(path: Path, room_bytes: int) -> None:
    """Ask for room before SQLite does: on a full disk its mapped memory would be a fatal signal.

    Raises:
        FullError: there is too little.
    """
    if _full(path, room_bytes):
        raise FullError(
            f"index {path}: expected {room_bytes >> 20} MiB of room, got less; "
            f"free space there, or {_ELSEWHERE}"
        )


def boot_id() -> str:
    """What tells this run of the operating system from those before."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
