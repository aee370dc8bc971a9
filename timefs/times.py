"""Times as names: every spelling of a time that a path or a command may use.

Defined here and only here: `parse` (a spelling to the time it means), `spell` (a time to a listed
name) and the values they share. Used by the time tree and the commands. Pure functions; the
server's clock is passed in. All spellings are UTC.

Accepted, each of the first four with an optional `Z`; parts left out are zero:

    2024-05-01                       2024-05-01T10:00[:37[.25]]
    2024-05-01T10-00[-37[.25]]       2024-05-01T1000[37[.25]]
    @GMT-2024.05.01-10.00.37         what Windows' Previous Versions sends ([MS-SMB2] 2.2.13)
    latest   -90s -5m -2h -3d -1w    yesterday (24 hours before now)

A name without a fraction means the last state at or before the *end* of its second, a fraction
(1 to 9 digits) means exactly that time.
"""

import re
from datetime import UTC, date, datetime, timedelta
from enum import Enum, StrEnum
from typing import Final, NamedTuple

from store.errors import NotFoundError

SECOND_NS: Final = 1_000_000_000
LATEST: Final = "latest"

_DATE = r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
_CLOCK = r"T([0-9]{2})([:-]?)([0-9]{2})(?:\5([0-9]{2})(?:\.([0-9]{1,9}))?)?"
_UTC: Final = re.compile(f"{_DATE}(?:{_CLOCK})?Z?")
_GMT: Final = re.compile(
    r"@GMT-([0-9]{4})\.([0-9]{2})\.([0-9]{2})-([0-9]{2})\.([0-9]{2})\.([0-9]{2})"
)
_AGO: Final = re.compile(r"-([0-9]{1,9})([smhdw])")
_UNIT_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_REPRESENTABLE_NS: Final = range(-(1 << 63), 1 << 63)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_DAY_SECONDS: Final = 86400
_CYCLE_YEARS, _CYCLE_DAYS = 400, 146_097
"""After so many the calendar repeats."""


class Names(StrEnum):
    """Which spelling a listing shows."""

    COLONS = "colons"
    """2024-05-01T10:00:37Z"""
    WINDOWS = "windows"
    """2024-05-01T10-00-37Z: Windows allows no colon in a name."""
    GMT = "gmt"
    """@GMT-2024.05.01-10.00.37: Samba's shadow_copy2; knows no fractions."""


class Meaning(Enum):
    """How a spelling refers to time, which decides whether its answer may be kept."""

    ABSOLUTE = "absolute"
    """Always the same time."""
    RELATIVE = "relative"
    """Counted from now."""
    LATEST = "latest"
    """The newest consistent instant, whatever its time."""


class Asked(NamedTuple):
    """The time that a spelling means: the last state at or before `time_ns`."""

    meaning: Meaning
    time_ns: int
    """UTC nanoseconds; the end of the second named, or the exact time of a fraction."""
    start_ns: int
    """Where what is named begins; a name is in the future when this is after now."""


def parse(spelling: str, now_ns: int) -> Asked:
    """The time that `spelling` means when the server's clock shows `now_ns`.

    Raises:
        NotFoundError: it is no spelling of a time, or no such day or hour exists.
    """
    if spelling == LATEST:
        return Asked(Meaning.LATEST, now_ns, now_ns)
    asked = _relative(spelling, now_ns) or _absolute(spelling)
    if asked is None or asked.time_ns not in _REPRESENTABLE_NS:
        raise NotFoundError(f"not a time; write it like 2024-05-01T10:00:37Z, {LATEST} or -5m")
    return asked


def _relative(spelling: str, now_ns: int) -> Asked | None:
    if spelling == "yesterday":
        spelling = "-1d"
    ago = _AGO.fullmatch(spelling)
    if ago is None:
        return None
    time_ns = now_ns - int(ago[1]) * _UNIT_SECONDS[ago[2]] * SECOND_NS
    return Asked(Meaning.RELATIVE, time_ns, time_ns)


def _absolute(spelling: str) -> Asked | None:
    fraction = None
    if match := _GMT.fullmatch(spelling):
        year, month, day, hour, minute, second = match.groups()
    elif match := _UTC.fullmatch(spelling):
        year, month, day, hour, _, minute, second, fraction = match.groups()
    else:
        return None
    try:
        clock = (int(hour or 0), int(minute or 0), int(second or 0))
        moment = datetime(int(year), int(month), int(day), *clock, tzinfo=UTC)
    except ValueError:
        return None
    start_ns = (moment - _EPOCH) // timedelta(seconds=1) * SECOND_NS
    if fraction is not None:
        start_ns += int(fraction.ljust(9, "0"))
        return Asked(Meaning.ABSOLUTE, start_ns, start_ns)
    return Asked(Meaning.ABSOLUTE, start_ns + SECOND_NS - 1, start_ns)


def spell(time_ns: int, names: Names = Names.COLONS, *, exact: bool = False) -> str:
    """The name of the second that `time_ns` lies in; of the very nanosecond when `exact`.

    Every number is a time: a guest's may lie in the year 30828, or before the year 0, which then
    has a minus sign.
    """
    second, fraction_ns = divmod(time_ns, SECOND_NS)
    day, second = divmod(second, _DAY_SECONDS)
    cycle, day = divmod(day, _CYCLE_DAYS)
    day_of_cycle = date.fromordinal(_EPOCH_ORDINAL + day)
    year = day_of_cycle.year + cycle * _CYCLE_YEARS
    hour, minute, second = second // 3600, second // 60 % 60, second % 60
    shown_year = f"{'-' * (year < 0)}{abs(year):04}"
    if names is Names.GMT:
        return f"@GMT-{shown_year}.{day_of_cycle:%m.%d}-{hour:02}.{minute:02}.{second:02}"
    colon = "-" if names is Names.WINDOWS else ":"
    fraction = f".{fraction_ns:09}" if exact else ""
    clock = f"{hour:02}{colon}{minute:02}{colon}{second:02}"
    return f"{shown_year}-{day_of_cycle:%m-%d}T{clock}{fraction}Z"
