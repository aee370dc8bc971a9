"""Times, sizes and names that no honest guest has: every command shows them, none breaks."""

import os
import struct
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.cli.program import Place
from tests.guest.fat.sketch import FOLDER, ExfatSketch, exfat_set
from tests.guest.ntfs.conftest import need_ntfs_3g
from tests.guest.ntfs.volume import Recipe, format_volume
from tests.guest.ntfs.volume import mounted as ntfs_mount
from tests.timetree.memory_history import MemoryHistory
from timefs.mount.mounting import mounted
from timefs.timetree import TimeTree

pytestmark = [pytest.mark.system, pytest.mark.root]

TEN = 1_714_557_600 * 10**9
TIMES = {"largest": (1 << 63) - 1, "year-10000": 2_650_467_744 * 10**9, "first": 0, "second": 1,
         "before-1601": -(1 << 63), "now": 133_590_312_000_000_000}  # fmt: skip
"""Ticks of 100 ns since 1601, as a record may hold them."""


@pytest.fixture(scope="module")
def ntfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_ntfs_3g()
    volume = tmp_path_factory.mktemp("odd") / "ntfs.img"
    format_volume(volume, Recipe(cluster_bytes=1024, size=4 << 20))
    with ntfs_mount(volume, "rw") as top:
        for name, ticks in TIMES.items():
            (top / name).write_text(name)
            packed = struct.pack("<4q", *[ticks] * 4)
            os.setxattr(top / name, "system.ntfs_times", packed)
    return volume


@pytest.fixture(scope="module")
def place(ntfs: Path) -> Place:
    """A repository with that volume, and with one of exFAT that claims much."""
    sketch = ExfatSketch(5000)
    sketch.fill(
        2,
        exfat_set("first"),
        exfat_set("bell \a and escape \x1b[2J"),
        exfat_set("lone \ud800"),
        exfat_set("huge", 3, size=(1 << 64) - 1),
        exfat_set("huge folder", 3, FOLDER, (1 << 64) - 1),
        exfat_set("last"),
    )
    sketch.chain(2, 3, 4)
    other = ntfs.with_name("exfat.img")
    other.write_bytes(sketch.content)
    place = Place(ntfs.parent)
    place.run("-r", "repo", "init")
    place.run("-r", "repo", "capture", "vm1", ntfs, other)
    return place


@pytest.mark.parametrize(
    "words", ["ls -l vm1/latest/exfat", "--json ls -R vm1/latest", "find vm1/latest -name *",
              "--json du vm1/latest/exfat"],
)  # fmt: skip
def test_no_command_breaks_whatever_a_guest_says(words: str, place: Place):
    said = place.run("-r", "repo", *words.split(), code=None)
    assert "Traceback" not in said.err
    assert said.code in {3, 5}  # for what claims so much
    assert "exfat/huge" in said.err
    if words.startswith("ls"):
        assert [line.split()[-1] for line in said.out.splitlines()][::5] == ["first", "last"]


def test_years_are_shown_as_ntfs_3g_shows_them(place: Place):
    listed = place.run("-r", "repo", "--json", "ls", "vm1/latest/ntfs").records()
    shown = {each["name"]: each["modified"] for each in listed}
    assert shown == {
        "largest": "30828-09-14T02:48:05.477580700Z",
        "year-10000": "10000-01-01T00:00:00.000000000Z",
        "first": "1601-01-01T00:00:00.000000000Z",
        "second": "1601-01-01T00:00:00.000000100Z",
        "before-1601": "-27627-04-19T21:11:54.522419200Z",
        "now": "2024-05-01T10:00:00.000000000Z",
    }


def test_what_has_an_odd_time_is_restored(place: Place, tmp_path: Path):
    place.run("-r", "repo", "restore", "vm1/latest/ntfs", tmp_path / "out")
    found = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert found == {name: name for name in TIMES}
    assert (tmp_path / "out" / "now").stat().st_mtime_ns == TEN


@pytest.mark.usefixtures("fuse")
def test_a_mount_shows_odd_times_as_they_are(ntfs: Path, tmp_path: Path):
    descriptor = os.open(ntfs, os.O_RDONLY)
    history = MemoryHistory(TEN)
    history.seal("vm1", TEN, {"ntfs.img": DescriptorImage(descriptor)})
    try:
        with mounted(TimeTree(history).root, tmp_path):
            folder = tmp_path / "vm1" / "latest" / "ntfs"
            assert {path.name for path in folder.iterdir()} == set(TIMES)
            for name, ticks in TIMES.items():
                expected = (ticks - 116_444_736_000_000_000) * 100
                assert (folder / name).stat().st_mtime_ns == expected
    finally:
        os.close(descriptor)
