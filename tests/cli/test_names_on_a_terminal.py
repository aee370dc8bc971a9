"""A name that would move the cursor, retitle the window or clear the screen is shown escaped."""

import json
from pathlib import Path

import numpy as np
import pytest

from store.format.pack import NO_HEAD, PackIdentity, build_pack, pack_name
from store.format.row import ROW, Row, RowKind
from store.format.statement import encode_statement
from store.repository import Repository
from tests.cli.program import Place

NAME = "x\x1b]0;title\x07\x1b[31m\x9b2J\rvm1"
SHOWN = r"x\x1b]0;title\x07\x1b[31m\x9b2J\rvm1"


@pytest.fixture
def named(place: Place) -> Place:
    """A repository with a machine of that name, which no capture would make."""
    place.run("-r", "repo", "init")
    repository = Repository(place.folder / "repo", place.folder / "cache of an enemy")
    identity = PackIdentity(
        bytes.fromhex(repository.id), 7, 0, 1, bytes(16), 1, last=True, previous=NO_HEAD
    )
    rows = [
        Row(RowKind.FILE, 0, 1, 1, 0, 1, 10**18, 0, 0, 0),
        Row(RowKind.RESIZE, 0, 1, 5000, 0, 2, 10**18, 0, 0, 0),
        Row(RowKind.INSTANT, 0, 0, 0, 0, 3, 10**18, 0, 0, 0),
    ]
    statement = encode_statement(np.array([tuple(row) for row in rows], ROW), [], [NAME, "a"])
    repository.backend.create(pack_name(7, 0), build_pack(identity, [], b"", statement))
    return place


@pytest.mark.parametrize("command", ["log", "status", "ls", "find / -name *", "du /", "check"])
def test_every_command_shows_it_escaped(named: Place, command: str):
    done = named.run("-r", "repo", *command.split(), code=None)
    shown = done.out + done.err
    assert not {*shown} & {*"\x1b\x07\x9b\r"}
    if command not in ("check", "du /"):
        assert SHOWN in shown


def test_programs_are_told_the_name_itself(named: Place):
    lines = named.run("-r", "repo", "log", "--json").out.splitlines()
    assert [json.loads(line)["machine"] for line in lines] == [NAME]


def test_errors_show_what_was_asked_for_escaped(named: Place, tmp_path: Path):
    done = named.run("-r", "repo", "ls", f"{NAME}/latest/{NAME}", code=None)
    assert not {*done.err} & {*"\x1b\x07\x9b\r"}
