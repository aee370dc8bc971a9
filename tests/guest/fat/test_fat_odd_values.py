"""What a FAT folder says, however odd: times of no calendar, dots that are damaged, large sizes."""

import calendar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import CorruptError
from tests.guest.fat.sketch import (
    FOLDER,
    ExfatSketch,
    Sketch,
    dots,
    entry,
    exfat_set,
    folder,
)
from timefs.guest.fat.record import time_ns
from timefs.times import spell
from timefs.tree import Folder, Leaf

SECOND_NS = 10**9


def stored_date(year: int, month: int, day: int) -> int:
    return year - 1980 << 9 | month << 5 | day


def stored_time(hour: int, minute: int, second: int) -> int:
    return hour << 11 | minute << 5 | second // 2


@given(st.integers(1980, 2107), st.integers(1, 12), st.integers(1, 31), st.integers(0, 86399))
def test_every_day_of_the_calendar_is_that_day(year: int, month: int, day: int, second: int):
    day = min(day, calendar.monthrange(year, month)[1])
    clock = (second // 3600, second // 60 % 60, second % 60 // 2 * 2)
    expected = calendar.timegm((year, month, day, *clock)) * SECOND_NS
    assert time_ns(stored_date(year, month, day), stored_time(*clock)) == expected


@pytest.mark.parametrize(
    ("date", "time", "shown"),
    [
        (0, 0, "1980-01-01T00:00:00Z"),  # never set
        (stored_date(2024, 0, 17), 0, "2024-01-17T00:00:00Z"),
        (stored_date(2023, 13, 1), 0, "2023-01-01T00:00:00Z"),
        (stored_date(2024, 13, 1), 0, "2024-01-02T00:00:00Z"),  # behind a leap day
        (stored_date(2024, 4, 31), 0, "2024-05-01T00:00:00Z"),
        (stored_date(2023, 2, 29), 0, "2023-03-01T00:00:00Z"),
        (stored_date(2100, 2, 29), 0, "2100-03-01T00:00:00Z"),
        (stored_date(2107, 12, 31), 0xFFFF, "2108-01-01T08:04:02Z"),  # 31:63:62
        (0xFFFF, 0xFFFF, "2107-02-01T08:04:02Z"),
    ],
)
def test_a_time_of_no_calendar_is_shown_as_the_kernel_shows_it(date: int, time: int, shown: str):
    assert spell(time_ns(date, time)) == shown


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.integers(0, 255), st.integers(-960, 945))
def test_whatever_is_stored_is_a_time(date: int, time: int, hundredths: int, offset: int):
    year = int(spell(time_ns(date, time, hundredths, offset))[:4])
    assert 1979 <= year <= 2108


BROKEN_DOTS = {
    "no first byte": (b"\0" + folder(b".", 5)[1:], folder(b"..", 0)),
    "no first bytes": (b"\0" + folder(b".", 5)[1:], b"\0" + folder(b"..", 0)[1:]),
    "another parent": (folder(b".", 5), folder(b"..", 9)),
    "no parent": (folder(b".", 5), folder(b"..", 60_000)),
    "not itself": (folder(b".", 77), folder(b"..", 0)),
    "files": (entry(b".", 5), entry(b"..", 0)),
    "deleted": (b"\xe5" + folder(b".", 5)[1:], b"\xe5" + folder(b"..", 0)[1:]),
    "none": (),
}


@pytest.mark.parametrize("broken", BROKEN_DOTS)
def test_damaged_dots_cost_a_folder_its_dots_and_not_its_files(broken: str):
    sketch = Sketch(16, 5000)
    sketch.fill(0, folder(b"A", 5), entry(b"BEHIND"))
    sketch.fill(5, *BROKEN_DOTS[broken], entry(b"FILE    TXT"), folder(b"B", 6))
    sketch.fill(6, dots(6, 5), entry(b"DEEP"))
    for cluster in (5, 6):
        sketch.chain(cluster)
    root = sketch.open().root
    found = root.lookup(b"A")
    assert isinstance(found, Folder)
    assert [name for name, _ in found.entries()] == [b"FILE.TXT", b"B"]
    assert isinstance(found.lookup(b"FILE.TXT"), Leaf)
    below = found.lookup(b"B")
    assert isinstance(below, Folder)
    assert [name for name, _ in below.entries()] == [b"DEEP"]
    assert [name for name, _ in root.entries()] == [b"A", b"BEHIND"]


def test_dots_whose_names_are_damaged_are_names_that_lead_nowhere_new():
    sketch = Sketch(16, 5000)
    sketch.fill(0, folder(b"A", 5))
    sketch.fill(5, folder(b"X", 5), folder(b"Y", 0), entry(b"FILE"))
    sketch.chain(5)
    found = sketch.open().root.lookup(b"A")
    assert isinstance(found, Folder)
    nodes = dict(found.entries())
    assert list(nodes) == [b"X", b"Y", b"FILE"]
    for name in (b"X", b"Y"):
        again = nodes[name]
        assert isinstance(again, Folder)
        with pytest.raises(CorruptError):
            list(again.entries())


@pytest.mark.parametrize("exfat", [False, True])
@pytest.mark.parametrize("size", [5000 * 512 + 1, (1 << 32) - 1, 1 << 63, (1 << 64) - 1])
def test_a_size_beyond_the_volume_is_an_error_of_that_file_alone(size: int, exfat: bool):
    if exfat:
        sketch = ExfatSketch(5000)
        sketch.fill(2, exfat_set("large", 3, size=size), exfat_set("next"))
    else:
        sketch = Sketch(16, 5000)
        sketch.fill(0, entry(b"LARGE", 3, size=min(size, (1 << 32) - 1)), entry(b"NEXT"))
    large, (_, behind) = sketch.open().root.entries()
    assert isinstance(large.node, Leaf)
    with pytest.raises(CorruptError, match="as many as the volume has, got"):
        large.node.attributes()
    with pytest.raises(CorruptError, match="as many as the volume has, got"):
        large.node.open()
    assert behind.attributes().size == 0
    listed = [attributes for part in sketch.open().root.entries_with_attributes()
              for _, _, attributes in part]  # fmt: skip
    assert [attributes is None for attributes in listed] == [True, False]


def test_an_exfat_folder_without_a_cluster_is_empty_and_one_of_fat_is_damaged():
    exfat = ExfatSketch(500)
    exfat.fill(2, exfat_set("folder", 0, FOLDER))
    empty = exfat.open().root.lookup(b"folder")
    assert isinstance(empty, Folder)
    assert list(empty.entries()) == []
    fat = Sketch(16, 5000)
    fat.fill(0, folder(b"FOLDER", 0))
    damaged = fat.open().root.lookup(b"FOLDER")
    assert isinstance(damaged, Folder)
    with pytest.raises(CorruptError, match="expected a cluster up to 5001, got 0"):
        list(damaged.entries())
