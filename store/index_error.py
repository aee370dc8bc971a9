"""SQLite's errors about the index as ours: what is damage, and what is only the place it is in.

Defined here and only here. Used by store.index. Thread-safe.
"""

import os
import sqlite3
from pathlib import Path
from typing import Final

from store.errors import BusyError, DamagedError, FullError, TimefsError

SQLITE_ERRORS: Final = (sqlite3.DatabaseError, UnicodeDecodeError)
"""The second where SQLite's message quotes a damaged schema and Python cannot decode it."""

SQLiteError = sqlite3.DatabaseError | UnicodeDecodeError

WRITE_ROOM_BYTES: Final = 8 << 20
"""Room that a change of the index needs at least."""

OPEN_ROOM_BYTES: Final = 1 << 20
"""Room that opening it needs when no other process has it open."""

_PLACE: Final = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)
_ELSEWHERE: Final = "name another place with --cache DIR"


def index_error(path: Path, error: SQLiteError) -> TimefsError:
    """What SQLite says, as one of ours."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    text = f"index {path}: {error}"
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _full(path)):
        return FullError(f"{text}; free space there, or {_ELSEWHERE}")
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return BusyError(f"{text}: another process is writing it; try again")
    if code in _PLACE:
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
