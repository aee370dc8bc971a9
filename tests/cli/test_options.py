"""Which repository, cache and configuration a command uses, and who goes before whom."""

import re
from pathlib import Path

import pytest

from tests.cli.program import Place

pytestmark = pytest.mark.system


@pytest.fixture
def three(place: Place) -> Place:
    """Three repositories, each with a machine of its name."""
    for name in ("one", "two", "three"):
        place.run("-r", name, "init")
        (place.folder / "file").write_text(name)
        place.run("-r", name, "capture", name, "file")
    (place.folder / "timefs.toml").write_text(f'repo = "{place.folder}/three"\n')
    return place


def test_the_option_goes_before_the_environment_and_that_before_the_configuration(three: Place):
    configured = ["--config", "timefs.toml"]
    assert three.run(*configured, "ls").out == "three\n"
    assert three.run(*configured, "ls", TIMEFS_REPO="two").out == "two\n"
    assert three.run(*configured, "-r", "one", "ls", TIMEFS_REPO="two").out == "one\n"
    assert three.run("ls", TIMEFS_REPO="two").out == "two\n"
    assert three.run("ls", TIMEFS_REPO=str(three.folder / "three")).out == "three\n"


def test_shared_options_stand_before_the_command_or_after_it(three: Place):
    wanted = three.run("-r", "one", "--json", "ls")
    assert three.run("ls", "-r", "one", "--json") == wanted
    assert three.run("--json", "ls", "--repo", "one") == wanted
    assert three.run("-r", "two", "ls", "-r", "one", "--json") == wanted
    assert three.run("ls", "--repo=one", "--json", "--config", "timefs.toml") == wanted


def test_the_cache_is_where_it_is_told_to_be(three: Place):
    def indexes(folder: str) -> list[Path]:
        return sorted((three.folder / folder).glob("*"))

    assert len(indexes("cache/timefs")) == 3
    three.run("-r", "one", "--cache", "elsewhere", "ls")
    assert len(indexes("elsewhere")) == 1
    (three.folder / "cached.toml").write_text(f'cache = "{three.folder}/configured"\n')
    three.run("-r", "one", "--config", "cached.toml", "ls")
    assert len(indexes("configured")) == 1
    three.run("-r", "one", "--config", "cached.toml", "--cache", "option", "ls")
    assert len(indexes("option")) == 1
    assert len(indexes("configured")) == 1
    assert not list((three.folder / "one").rglob("*.sqlite*")), "never in the repository"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("color = true", "unknown key color; known are cache,"),
        ("repo = 3", "repo: expected str, got 3"),
        ('frame_cache_mib = "64"', "frame_cache_mib: expected int"),
        ("frame_cache_mib = 0", "expected at least 1"),
        ('names = "gmt"', "names: expected colons or windows, got 'gmt'"),
        ('repo = "here"', "repo: expected an absolute path"),
        ("repo = [\n", "Invalid value"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_configuration_that_is_wrong_is_an_error(place: Place, content: str, words: str):
    path = place.folder / "timefs.toml"
    path.write_bytes(content.encode(errors="surrogateescape"))
    said = place.refused("--config", "timefs.toml", "-r", "repo", "ls", code=2)
    assert said.startswith("timefs.toml: ")
    assert words in said


def test_a_configuration_that_is_not_there(place: Place):
    assert "none.toml: no such configuration file" in place.refused("--config", "none.toml", "ls")
    said = place.refused("--config", ".", "-r", "repo", "ls", code=2)
    assert said == ".: is a directory"


def test_names_are_spelt_as_configured(three: Place):
    (three.folder / "windows.toml").write_text('names = "windows"\n')
    done = three.run("-r", "one", "ls", "one", "--config", "windows.toml")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ", done.out.split()[-1])
    assert re.fullmatch(r".*T\d\d:\d\d:\d\dZ", three.run("-r", "one", "ls", "one").out.split()[-1])
