"""Each exit code of the table in the README, produced by what it stands for."""

import fcntl
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.conftest import World
from tests.cli.program import PROGRAM, Place

pytestmark = pytest.mark.system
README = Path(__file__).parents[2] / "README.md"

CODES = {
    0: "done",
    1: "failed",
    2: "usage",
    3: "done but incomplete",
    4: "busy",
    5: "damaged",
    10: "no repository",
    12: "wrong key",
    130: "interrupted",
}


@pytest.fixture
def made(world: World, place: Place) -> Place:
    world.copied_to(place)
    return place


def kind(place: Place, *words: str | Path, code: int) -> str:
    """The kind of the one error that a program is told, which agrees with the exit code."""
    said = place.run("-r", "repo", *words, "--json", code=code).error()
    assert list(said) == ["code", "kind", "message"]
    assert said["code"] == code
    assert "\n" not in said["message"]
    told = place.run("-r", "repo", *words, code=code)
    assert told.err.startswith("timefs: ")
    assert told.err.count("\n") == 1
    return said["kind"]


def test_the_readme_has_the_table():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", README.read_text(), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == CODES


def test_0_done(made: Place):
    assert made.run("-r", "repo", "check").code == 0


def test_1_failed(made: Place):
    assert kind(made, "ls", "vm1/latest/nothing", code=1) == "not-found"


def test_2_usage(made: Place):
    assert kind(made, "ls", "--nonsense", code=2) == "usage"


def test_3_incomplete(made: Place):
    """A file that changes while it is read makes its instant fuzzy."""
    disk = made.folder / "busy"
    with disk.open("wb") as file:
        file.write(os.urandom(64 << 20))
    writer = subprocess.Popen(
        [
            "sh",
            "-c",
            "while printf x | dd of=busy bs=1 seek=5 conv=notrunc status=none; do :; done",
        ],
        cwd=made.folder,
    )
    try:
        done = made.run("-r", "repo", "capture", "vm1", "busy", "--json", code=3)
        assert done.error()["kind"] == "incomplete"
        assert done.records()[0]["fuzzy"] is True
        told = made.run("-r", "repo", "capture", "vm1", "busy", code=3)
        assert told.err.count("\n") == 1
        assert "busy changed while it was read" in told.err
    finally:
        writer.kill()
        writer.wait()
    assert [record["fuzzy"] for record in made.run("-r", "repo", "log", "--json").records()] == [
        *(False, False, True, True)
    ]


def test_4_busy(made: Place):
    """Whoever captures the machine is named."""
    claim = made.folder / "repo" / "claims" / (b"vm1".hex() + ".claim")
    with claim.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("process 42 on here     ")
        held.flush()
        held.truncate()
        assert kind(made, "capture", "vm1", PROGRAM, code=4) == "busy"
        assert "process 42 on here" in made.run("-r", "repo", "capture", "vm1", PROGRAM, code=4).err
    assert made.run("-r", "repo", "capture", "vm1", PROGRAM).code == 0


def test_5_damaged(made: Place):
    packs = sorted((made.folder / "repo" / "packs").rglob("*[0-9]"), key=lambda p: p.stat().st_size)
    packs[-1].unlink()
    assert kind(made, "check", code=5) == "damaged"


def test_10_no_repository(place: Place):
    assert kind(place, "ls", code=10) == "no-repository"


def test_12_wrong_key(made: Place):
    path = made.folder / "repo" / "repository.json"
    description = json.loads(path.read_text())
    description["key"] = os.urandom(32).hex()
    path.chmod(0o600)
    path.write_text(json.dumps(description))
    assert kind(made, "ls", code=12) == "wrong-key"


@pytest.mark.parametrize(
    ("number", "as_json"),
    [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, False)],
)
def test_130_interrupted(made: Place, number: signal.Signals, as_json: bool):
    """By Ctrl-C, by kill and by a terminal that closes; earlier instants are untouched."""
    before = made.run("-r", "repo", "log").out
    with (made.folder / "large").open("wb") as file:
        for _ in range(32):
            file.write(os.urandom(8 << 20))
    words = ["-r", "repo", "capture", "vm1", "large", *(["--json"] if as_json else [])]
    process = subprocess.Popen(
        [PROGRAM, *words], cwd=made.folder, env=made.environment, stderr=subprocess.PIPE, text=True
    )
    claim = made.folder / "repo" / "claims" / (b"vm1".hex() + ".claim")
    while f"process {process.pid} " not in claim.read_text():
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.count("\n") == 1
    if as_json:
        assert json.loads(said)["error"]["kind"] == "interrupted"
    else:
        assert said == "timefs: interrupted; earlier instants are untouched\n"
    assert made.run("-r", "repo", "log").out == before
    assert made.run("-r", "repo", "check", "--deep").code == 0
