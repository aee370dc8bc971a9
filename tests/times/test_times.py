import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import NotFoundError
from timefs.times import SECOND_NS, Asked, Meaning, Names, parse, spell

TEN = 1_714_557_600 * SECOND_NS  # 2024-05-01T10:00:00Z
NOW = TEN + 3600 * SECOND_NS
times_ns = st.integers(-(1 << 62), (1 << 62))


def end_of(second_ns: int) -> Asked:
    return Asked(Meaning.ABSOLUTE, second_ns + SECOND_NS - 1, second_ns)


@pytest.mark.parametrize("zone", ["", "Z"])
@pytest.mark.parametrize(
    ("spelling", "asked"),
    [
        ("2024-05-01", end_of(TEN - 36000 * SECOND_NS)),
        ("2024-05-01T10:00", end_of(TEN)),
        ("2024-05-01T10:00:37", end_of(TEN + 37 * SECOND_NS)),
        ("2024-05-01T10-00", end_of(TEN)),
        ("2024-05-01T10-00-37", end_of(TEN + 37 * SECOND_NS)),
        ("2024-05-01T1000", end_of(TEN)),
        ("2024-05-01T100037", end_of(TEN + 37 * SECOND_NS)),
    ],
)
def test_a_name_without_fraction_means_the_end_of_its_second(
    spelling: str, asked: Asked, zone: str
):
    assert parse(spelling + zone, NOW) == asked


@pytest.mark.parametrize("clock", ["10:00:37", "10-00-37", "100037"])
@pytest.mark.parametrize(
    ("digits", "fraction_ns"), [("5", 500_000_000), ("000000001", 1), ("123456789", 123_456_789)]
)
def test_a_fraction_means_exactly_that_time(clock: str, digits: str, fraction_ns: int):
    exact = TEN + 37 * SECOND_NS + fraction_ns
    for zone in ("", "Z"):
        asked = parse(f"2024-05-01T{clock}.{digits}{zone}", NOW)
        assert asked == Asked(Meaning.ABSOLUTE, exact, exact)


def test_previous_versions_spelling():
    assert parse("@GMT-2024.05.01-10.00.37", NOW) == end_of(TEN + 37 * SECOND_NS)


@pytest.mark.parametrize(
    ("spelling", "seconds"),
    [("-90s", 90), ("-5m", 300), ("-2h", 7200), ("-3d", 259_200), ("-1w", 604_800), ("-0m", 0)],
)
def test_relative_spellings_count_from_now(spelling: str, seconds: int):
    then = NOW - seconds * SECOND_NS
    assert parse(spelling, NOW) == Asked(Meaning.RELATIVE, then, then)


def test_yesterday_is_a_day_before_now():
    assert parse("yesterday", NOW) == parse("-1d", NOW)


def test_latest_is_neither_absolute_nor_counted():
    assert parse("latest", NOW).meaning is Meaning.LATEST


@pytest.mark.parametrize(
    "spelling",
    [
        "",
        "Z",
        "now",
        "Latest",
        "2024",
        "2024-02-30",
        "2023-02-29",
        "2024-13-01",
        "2024-00-01",
        "0000-01-01",
        "2024-05-01T25:00",
        "2024-05-01T10:60",
        "2024-05-01T10:00:60",
        "2024-05-01T10",
        "2024-05-01T10:00-37",
        "2024-05-01T10:0037",
        "2024-05-01T10:00.5",
        "2024-05-01T10:00:37.",
        "2024-05-01T10:00:37.1234567890",
        "2024-05-01T10:00:37+02:00",
        "2024-05-01 10:00",
        "2024-05-01T10:00:37ZZ",
        "٢٠٢٤-05-01",
        "2024-05-01\n",
        "@GMT-2024.05.01-10.00",
        "@GMT-2024.05.01-25.00.00",
        "@GMT-2024.05.01-10.00.37Z",
        "-5",
        "-m",
        "5m",
        "-5y",
        "-1000000000d",
        "-99999999w",
        "9999-01-01",
        "1500-01-01",
    ],
)
def test_anything_else_is_not_a_time(spelling: str):
    with pytest.raises(NotFoundError):
        parse(spelling, NOW)


@given(time_ns=times_ns, names=st.sampled_from([Names.COLONS, Names.WINDOWS]))
def test_an_exact_name_leads_back_to_its_nanosecond(time_ns: int, names: Names):
    assert parse(spell(time_ns, names, exact=True), NOW).time_ns == time_ns


@given(time_ns=times_ns, names=st.sampled_from(list(Names)))
def test_a_listed_name_covers_its_whole_second(time_ns: int, names: Names):
    asked = parse(spell(time_ns, names), NOW)
    assert asked.start_ns == time_ns // SECOND_NS * SECOND_NS
    assert asked.time_ns == asked.start_ns + SECOND_NS - 1


@given(time_ns=times_ns)
def test_names_sort_as_times_do_and_windows_names_have_no_forbidden_character(time_ns: int):
    later = time_ns + SECOND_NS
    for names in Names:
        assert spell(time_ns, names) < spell(later, names)
    assert not re.search(r'[<>:"/\\|?*]', spell(time_ns, Names.WINDOWS, exact=True))


@given(st.floats(-8e9, 8e9))
def test_the_calendar_is_pythons(timestamp: float):
    moment = datetime.fromtimestamp(timestamp, UTC)
    seconds = int(moment.replace(microsecond=0).timestamp())
    asked = parse(moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{moment.microsecond:06}Z", NOW)
    assert asked.time_ns == seconds * SECOND_NS + moment.microsecond * 1000


@given(st.text(max_size=40))
def test_only_not_found_comes_out_whatever_the_name(name: str):
    with suppress(NotFoundError):
        assert spell(parse(name, NOW).time_ns)
    with pytest.raises(NotFoundError) as caught:
        parse(name + "x", NOW)
    assert "\n" not in str(caught.value)


@given(st.integers(-(1 << 93), 1 << 93))
def test_every_number_is_a_time_of_the_calendar_that_goes_on_for_ever(time_ns: int):
    shown = spell(time_ns, exact=True)
    found = re.fullmatch(r"(-?[0-9]{4,})-(.{5}T.{8}\.[0-9]{9})Z", shown)
    assert found is not None
    cycles = int(found[1]) // 400 - 5  # of 400 years, from one that datetime knows
    alike = time_ns - cycles * 146_097 * 86400 * SECOND_NS
    assert spell(alike, exact=True) == f"{int(found[1]) - cycles * 400}-{found[2]}Z"
    second, fraction_ns = divmod(alike, SECOND_NS)
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
    assert f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction_ns:09}Z" == spell(alike, exact=True)


def test_what_a_wiped_ntfs_record_says_is_shown_as_other_tools_show_it():
    wiped_ns = ((1 << 63) - 1 - 116_444_736_000_000_000) * 100
    assert spell(wiped_ns, exact=True) == "30828-09-14T02:48:05.477580700Z"
