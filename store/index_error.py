"""SQLite's errors about the index as ours: what is damage, and what is only the place it is in.

Defined here and only here. Used by store.index. Thread-safe.
"""

import os
import sqlite3
from pathlib import Path
from typing import Final

from store.errors import BusyError, DamagedError, FullError, TimefsError

ROOM_BYTES_MIN: Final = 1 << 20
"""With less room than this an input or output error of SQLite is a full disk."""

_PLACE: Final = (
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)
_ELSEWHERE: Final = "name another place with --cache DIR"


def index_error(path: Path, error: sqlite3.DatabaseError) -> TimefsError:
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


def _full(path: Path) -> bool:
    status = os.statvfs(path.parent)
    return status.f_bavail * status.f_frsize < ROOM_BYTES_MIN


def boot_id() -> str:
    """What tells this run of the operating system from those before."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
