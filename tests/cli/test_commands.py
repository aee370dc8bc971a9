"""Every command on real input, for people and for programs."""

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import World
from tests.cli.guest_disk import sha256
from tests.cli.program import Place
from timefs.cli.main import COMMANDS

pytestmark = pytest.mark.system
PAGE = Path(__file__).parents[2] / "docs" / "json.md"
DAY = "vm1/2026-05-01T10:00"


def documented(command: str) -> list[list[str]]:
    """The fields of a command's objects, as docs/json.md says: one list a kind of object."""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if command in [name.strip() for name in cells[0].split(",")]:
            return [re.split(r",\s*", kind) for kind in re.split(r";\s*then\s*", cells[1])]
    raise AssertionError(f"{command} is not in {PAGE}")


def words_of(command: str, world: World, place: Place) -> list[str]:
    """A call of a command that succeeds."""
    calls = {
        "init": ["init", "-r", "fresh"],
        "capture": ["capture", "vm2", str(world.disk)],
        "log": ["log", "vm1"],
        "ls": ["ls", f"{DAY}/disk/docs"],
        "cat": ["cat", f"{DAY}/disk/docs/report.txt"],
        "find": ["find", DAY, "-name", "*.mdf"],
        "du": ["du", f"{DAY}/disk"],
        "restore": ["restore", f"{DAY}/disk/docs", str(place.folder / "out")],
        "mount": ["mount", str(place.folder / "history")],
        "unmount": ["unmount", str(place.folder / "history")],
        "check": ["check", "--deep"],
        "rebuild": ["rebuild"],
        "status": ["status", "--state", str(place.folder / "share")],
    }
    return calls[command]


@pytest.fixture
def copy(world: World, place: Place) -> Place:
    """The world's repository, to be changed."""
    world.copied_to(place)
    (place.folder / "history").mkdir()
    return place


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "share"])
def test_a_command_speaks_to_people_and_to_programs(
    command: str, world: World, copy: Place, request: pytest.FixtureRequest
):
    # `share` serves until it is interrupted: tests/share.
    if command in ("mount", "unmount"):
        request.getfixturevalue("fuse")
    words = words_of(command, world, copy)
    for as_json in (False, True):
        if command == "unmount":
            copy.run("-r", "repo", *words_of("mount", world, copy))
        done = copy.run("-r", "repo", *words, *(["--json"] if as_json else []))
        if command == "mount":
            copy.run(*words_of("unmount", world, copy))
        assert done.err == "", "quiet where nothing is wrong and nobody watches"
        if command == "cat":
            assert done.out == "Report 1\n" * 300
            continue
        assert done.out.endswith("\n")
        if not as_json:
            assert not done.out.startswith("{")
            for made in ("fresh", "out"):
                shutil.rmtree(copy.folder / made, ignore_errors=True)
            continue
        kinds = documented(command)
        for record in done.records():
            assert list(record) in kinds
        assert list(done.records()[-1]) == kinds[-1]


def test_the_json_page_names_every_command():
    for command in COMMANDS:
        assert command == "cat" or documented(command)


def test_findings_of_a_check_have_the_documented_fields(copy: Place):
    pack = max((copy.folder / "repo" / "packs").rglob("*[0-9]"), key=lambda p: p.stat().st_size)
    pack.chmod(0o600)
    with pack.open("r+b") as file:
        file.seek(pack.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    done = copy.run("-r", "repo", "check", "--deep", "--json", code=5)
    finding, total = documented("check")
    records = done.records()
    assert [list(record) for record in records[:-1]] == [finding] * (len(records) - 1)
    assert list(records[-1]) == total
    assert records[0]["damage"]
    assert any("vm1" in line for line in records[0]["hurts"])
    assert done.error()["kind"] == "damaged"
    told = copy.run("-r", "repo", "check", "--deep", code=5)
    assert "hurts" in told.out
    assert told.err.count("\n") == 1


def test_times_are_rfc_3339_and_sizes_are_numbers(world: World):
    for record in world.place.run("-r", "repo", "log", "--json").records():
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", record["time"])
        assert record["machine"] == "vm1"
        assert record["files"] == 1
        sizes = [value for name, value in record.items() if name.endswith("_bytes")]
        assert len(sizes) == 3
        assert all(isinstance(size, int) for size in sizes)


def test_log_is_in_order_and_knows_one_machine_or_all(world: World):
    lines = world.place.run("-r", "repo", "log").out.splitlines()
    assert [line.split()[1][:10] for line in lines] == ["2026-05-01", "2026-05-02"]
    assert world.place.run("-r", "repo", "log", "vm1").out.splitlines() == lines


def test_ls_walks_from_the_machines_into_the_disk(world: World):
    def names(path: str) -> list[str]:
        return world.place.run("-r", "repo", "ls", path).out.splitlines()

    assert names("") == ["vm1"]
    assert names("vm1")[-2:] == ["2026-05-01T10:00:00Z", "2026-05-02T10:00:00Z"]
    assert names(DAY) == ["disk.vhdx", "disk", "disk.d"]
    assert names(f"/{DAY}/disk/") == ["Data", "docs", "sql"]
    assert names(f"{DAY}/disk.d") == ["p1-Data"]
    assert names(f"{DAY}/disk.vhdx") == [f"{DAY}/disk.vhdx"]


def test_ls_long_shows_kind_size_and_time(world: World):
    done = world.place.run("-r", "repo", "ls", "-l", f"{DAY}/disk/sql")
    (line,) = done.out.splitlines()
    mode, size, unit, time, name = line.split()
    assert (mode, size, unit, name) == ("-r--r--r--", "2.0", "MiB", "database.mdf")
    assert time.endswith("Z")


def test_every_guest_file_of_every_instant_is_the_one_the_guest_had(world: World):
    for day, sums in enumerate(world.sums, 1):
        out = world.place.folder / f"all-{day}"
        out.mkdir()
        path = f"vm1/2026-05-0{day}T10:00/disk"
        done = world.place.run("-r", "repo", "restore", "--json", path, out)
        assert done.records()[0]["files"] == len(sums) == 2 + day
        got = {
            str(file.relative_to(out / "disk")): sha256(file)
            for file in out.rglob("*")
            if file.is_file()
        }
        assert got == sums
        world.place.run("-r", "repo", "restore", f"{path}/sql/database.mdf", out / "one")
        assert sha256(out / "one") == sums["sql/database.mdf"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_with_an_example(command: str, place: Place):
    done = place.run(command, "--help")
    assert done.err == ""
    assert re.search(rf"\n  Examples?:\n    timefs {command}\b", done.out), done.out
    for option in ("--repo", "--cache", "--config", "--json"):
        assert option in done.out
    assert max(map(len, done.out.splitlines())) <= 100


def test_the_program_explains_itself(place: Place):
    done = place.run()
    assert done == place.run("--help")
    for word in [*COMMANDS, "TIMEFS_REPO", "Exit codes"]:
        assert word in done.out
    assert re.fullmatch(r"timefs, version \d+\.\d+\.\d+\n", place.run("--version").out)


def test_json_objects_are_one_a_line(world: World):
    done = world.place.run("-r", "repo", "--json", "ls", f"{DAY}/disk")
    assert [json.loads(line)["name"] for line in done.out.splitlines()] == ["Data", "docs", "sql"]
