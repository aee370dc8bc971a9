"""Which instants a listing shows, and by which names.

Defined here and only here: `curated` and `listed_names`. Used by the folder of a machine. Pure
functions.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from store.history import Instant
from timefs.times import SECOND_NS, Names, spell

LISTED_MAX: Final = 1300
"""Instants that are all listed; SMB clients list through 64 KiB buffers and grow slow beyond."""

_MINUTE_NS: Final = 60 * SECOND_NS
_HOUR_NS: Final = 60 * _MINUTE_NS
_DAY_NS: Final = 24 * _HOUR_NS
_THINNING: Final = ((2 * _HOUR_NS, _MINUTE_NS), (3 * _DAY_NS, _HOUR_NS), (90 * _DAY_NS, _DAY_NS))
"""Up to which age one instant of each such stretch of UTC time is listed; older: of each month."""


def listed_names(
    instants: Sequence[Instant], now_ns: int, names: Names
) -> Iterator[tuple[str, Instant]]:
    """What a listing shows of `instants`, oldest first: all there are, or all that differ.

    The last instant of a second bears the second's name, another one its exact time, or none in a
    spelling without fractions.
    """
    for position in curated(instants, now_ns):
        last_of_second = _last_of_second(instants, position)
        if last_of_second or names is not Names.GMT:
            time_ns = instants[position].time_ns
            yield spell(time_ns, names, exact=not last_of_second), instants[position]


def curated(instants: Sequence[Instant], now_ns: int) -> list[int]:
    """The positions of the instants that a listing shows."""
    distinct = [at for at in range(len(instants)) if not _shadowed(instants, at)]
    if len(distinct) <= LISTED_MAX:
        return distinct
    return list(_newest_of_each_stretch(instants, distinct, now_ns))


def _shadowed(instants: Sequence[Instant], position: int) -> bool:
    """Whether a later instant has the very same time, so that no name leads to this one."""
    following = position + 1
    return following < len(instants) and instants[following].time_ns == instants[position].time_ns


def _newest_of_each_stretch(
    instants: Sequence[Instant], distinct: list[int], now_ns: int
) -> Iterator[int]:
    held: int | None = None
    held_stretch: tuple[int, str] | None = None
    for position in distinct:
        stretch = _stretch(instants[position].time_ns, now_ns)
        if held is not None and stretch != held_stretch:
            yield held
        held, held_stretch = position, stretch
    if held is not None:
        yield held


def _stretch(time_ns: int, now_ns: int) -> tuple[int, str]:
    """Equal for times of which a listing shows only the newest: (length, which one)."""
    for age_ns, length_ns in _THINNING:
        if now_ns - time_ns <= age_ns:
            return length_ns, str(time_ns // length_ns)
    return 0, spell(time_ns)[:7]


def _last_of_second(instants: Sequence[Instant], position: int) -> bool:
    second = instants[position].time_ns // SECOND_NS
    following = position + 1
    return following == len(instants) or instants[following].time_ns // SECOND_NS != second
