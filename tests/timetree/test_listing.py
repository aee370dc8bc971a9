from hypothesis import given
from hypothesis import strategies as st

from store.history import Instant
from timefs.times import SECOND_NS, Names, parse
from timefs.timetree.listing import LISTED_MAX, curated, listed_names

TEN = 1_714_557_600 * SECOND_NS  # 2024-05-01T10:00:00Z
HOUR = 3600 * SECOND_NS
DAY = 24 * HOUR


def instants(times_ns: list[int]) -> list[Instant]:
    return [Instant("vm1", 1, 1, n, time_ns, fuzzy=False) for n, time_ns in enumerate(times_ns)]


def names_of(times_ns: list[int], now_ns: int, names: Names = Names.COLONS) -> list[str]:
    return [name for name, _ in listed_names(instants(times_ns), now_ns, names)]


def test_a_listing_spells_seconds():
    assert names_of([TEN, TEN + 37 * SECOND_NS + 5], TEN + HOUR) == [
        "2024-05-01T10:00:00Z",
        "2024-05-01T10:00:37Z",
    ]


def test_windows_gets_names_without_colons():
    assert names_of([TEN], TEN + HOUR, Names.WINDOWS) == ["2024-05-01T10-00-00Z"]


def test_of_one_second_the_last_bears_its_name_and_the_others_their_fraction():
    times = [TEN + 1, TEN + 2, TEN + 900_000_000]
    assert names_of(times, TEN + HOUR) == [
        "2024-05-01T10:00:00.000000001Z",
        "2024-05-01T10:00:00.000000002Z",
        "2024-05-01T10:00:00Z",
    ]
    assert names_of(times, TEN + HOUR, Names.GMT) == ["@GMT-2024.05.01-10.00.00"]


def test_of_one_nanosecond_only_the_last_can_be_asked_for_and_is_listed():
    assert names_of([TEN, TEN, TEN + SECOND_NS], TEN + HOUR) == [
        "2024-05-01T10:00:00Z",
        "2024-05-01T10:00:01Z",
    ]


def test_up_to_the_limit_every_instant_is_listed():
    times = [TEN + n * SECOND_NS for n in range(LISTED_MAX)]
    assert len(names_of(times, TEN + 400 * DAY)) == LISTED_MAX


def test_beyond_the_limit_recent_ones_are_listed_by_minute_hour_day_and_month():
    now = TEN + 400 * DAY
    times = list(range(TEN, now + 1, 10 * 60 * SECOND_NS))  # every ten minutes of 400 days
    times += list(range(times[-1], now + 1, 10 * SECOND_NS))
    listed = [times[position] for position in curated(instants(times), now)]
    ages = [now - time_ns for time_ns in listed]
    assert sum(age <= 2 * HOUR for age in ages) == 13
    assert sum(2 * HOUR < age <= 3 * DAY for age in ages) == 70
    assert sum(3 * DAY < age <= 90 * DAY for age in ages) == 88
    assert sum(age > 90 * DAY for age in ages) == 11
    assert listed[-1] == times[-1]
    by_day = [time_ns for time_ns in listed if 4 * DAY < now - time_ns <= 89 * DAY]
    assert all((time_ns + 10 * 60 * SECOND_NS) % DAY == 0 for time_ns in by_day)


def test_every_minute_of_the_last_two_hours_is_listed():
    times = [TEN + n * SECOND_NS for n in range(4 * 3600)]
    listed = names_of(times, times[-1])
    assert len([name for name in listed if name >= "2024-05-01T12:00:00Z"]) == 120


@given(st.lists(st.integers(0, 3 * SECOND_NS), min_size=1, max_size=60))
def test_each_listed_name_leads_back_to_its_instant(offsets_ns: list[int]):
    every = instants(sorted(TEN + offset_ns for offset_ns in offsets_ns))
    listed = list(listed_names(every, TEN + HOUR, Names.COLONS))
    assert {instant.time_ns for _, instant in listed} == {instant.time_ns for instant in every}
    for name, instant in listed:
        asked = parse(name, TEN + HOUR).time_ns
        assert [each for each in every if each.time_ns <= asked][-1] == instant


@given(
    st.lists(
        st.integers(0, 200 * DAY // SECOND_NS), min_size=LISTED_MAX + 1, max_size=LISTED_MAX + 50
    )
)
def test_the_newest_is_always_listed_and_order_is_time(offsets: list[int]):
    times = sorted({TEN + offset * SECOND_NS for offset in offsets})
    listed = names_of(times, times[-1])
    assert listed == sorted(listed)
    assert parse(listed[-1], 0).start_ns == times[-1]
