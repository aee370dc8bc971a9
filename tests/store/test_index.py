"""The index as something shared, deleted, damaged and made again at any moment."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from store.description import create_repository
from store.errors import TimefsError
from store.history import FileKind
from store.index.database import connect
from store.index.proof import derived_tables
from store.repository import Repository
from tests.store.history import write_instants

CONTENTS = [bytes([number]) * 5000 + os.urandom(9000) for number in range(6)]

READER = """
import sys
from pathlib import Path
from store.repository import Repository
repository = Repository(Path(sys.argv[1]), Path(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    for instant in repository.history.instants("vm1"):
        (state,) = repository.history.files(instant)
        assert repository.history.open(instant, state).read(0, state.size)[0] == instant.epoch - 1
    {extra}
print(len(repository.history.instants("vm1")))
"""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    create_repository(tmp_path / "repo")
    repository = Repository(tmp_path / "repo", tmp_path / "cache")
    write_instants(repository, "vm1", CONTENTS)
    repository.history.machines()
    return repository


def index_file(repository: Repository) -> Path:
    return repository.cache / "index.sqlite"


def dump(repository: Repository) -> dict[str, list[Any]]:
    return {
        table: sorted(repository.index.ask(f"SELECT * FROM {table}"), key=repr)
        for table in derived_tables()
    }


def contents(repository: Repository, machine: str = "vm1") -> list[bytes]:
    found: list[bytes] = []
    for instant in repository.history.instants(machine):
        (state,) = repository.history.files(instant)
        found.append(repository.history.open(instant, state).read(0, state.size))
    return found


def start(repository: Repository, extra: str, times: int) -> subprocess.Popen[str]:
    """A process that reads the whole history over and over, with something in between."""
    arguments = [str(repository.root), str(repository.cache.parent), str(times)]
    return subprocess.Popen(
        [sys.executable, "-c", READER.format(extra=extra), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def finish(processes: Sequence[subprocess.Popen[str]]) -> None:
    said = [process.communicate(timeout=120) for process in processes]
    assert said == [(f"{len(CONTENTS)}\n", "")] * len(processes)


def test_processes_that_make_a_new_index_at_once_share_it(repository: Repository):
    expected = dump(repository)
    shutil.rmtree(repository.cache)
    finish([start(repository, "pass", 1) for _ in range(4)])
    assert dump(repository) == expected


def test_readers_go_on_while_others_rebuild_the_index(repository: Repository):
    expected = dump(repository)
    extra = "repository.index.rebuild(repository.reader)"
    finish(
        [start(repository, extra, 5), start(repository, "pass", 20), start(repository, extra, 5)]
    )
    assert contents(repository) == CONTENTS
    assert dump(repository) == expected


@pytest.mark.parametrize("how", ["rebuild", "delete"])
def test_an_open_image_outlives_its_index(repository: Repository, how: str):
    instants = repository.history.instants("vm1")
    (state,) = repository.history.files(instants[2])
    image = repository.history.open(instants[2], state)
    if how == "rebuild":
        repository.index.rebuild(repository.reader)
    else:
        shutil.rmtree(repository.cache)
    assert image.read(0, state.size) == CONTENTS[2]
    assert [f.name for f in repository.history.files(instants[5])] == ["disk"]


def test_a_rebuild_that_is_killed_leaves_the_old_index(repository: Repository, tmp_path: Path):
    expected = dump(repository)
    program = """
import os, sys
from pathlib import Path
from store.repository import Repository
repository = Repository(Path(sys.argv[1]), Path(sys.argv[2]))
reader = repository.reader
whole_digests, left = reader.whole_digests, [4]
def die(*place):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), 9)
    return whole_digests(*place)
reader.whole_digests = die
repository.index.rebuild(reader)
"""
    arguments = [sys.executable, "-c", program, str(repository.root), str(tmp_path / "cache")]
    assert subprocess.run(arguments, check=False, timeout=60).returncode == -9
    assert dump(repository) == expected
    repository.index.rebuild(repository.reader)
    assert dump(repository) == expected
    assert not (repository.cache / "rebuild").exists()


def test_an_index_of_another_format_is_made_again(repository: Repository):
    expected = dump(repository)
    with closing(connect(index_file(repository))) as connection:
        connection.change("UPDATE meta SET format = 0")
        connection.change("DROP TABLE pages")
        connection.change("CREATE TABLE pages (something INTEGER)")
    again = Repository(repository.root, repository.cache.parent)
    assert contents(again) == CONTENTS
    assert dump(again) == expected


@pytest.mark.parametrize("what", ["garbage", "empty", "folder"])
def test_a_file_that_is_no_index_is_replaced_or_said(repository: Repository, what: str):
    expected = dump(repository)
    repository.close()
    for left in repository.cache.glob("index.sqlite*"):
        left.unlink()
    if what == "folder":
        index_file(repository).mkdir()
        with pytest.raises(TimefsError, match="name another place with --cache"):
            Repository(repository.root, repository.cache.parent)
        return
    index_file(repository).write_bytes(b"garbage" * 1000 if what == "garbage" else b"")
    again = Repository(repository.root, repository.cache.parent)
    assert contents(again) == CONTENTS
    assert dump(again) == expected


def test_machines_are_found_though_a_writer_before_them_is_gone(repository: Repository):
    write_instants(repository, "vm2", [b"second"])
    shutil.rmtree(repository.root / "packs/00000001")
    again = Repository(repository.root, repository.root.parent / "other")
    assert list(again.history.machines()) == ["vm2"]
    assert contents(again, "vm2") == [b"second"]
    assert again.logs.state("vm3").writer == 3


def test_numbers_beyond_32_bits_come_back(repository: Repository):
    state = repository.logs.state("big")
    size = (1 << 50) + 12345
    transaction = repository.logs.begin(state, 1)
    transaction.declare(1, "disk", FileKind.CONTAINER)
    transaction.resize(1, size)
    transaction.zero(1, 0, size)
    transaction.write(1, (1 << 49) + 7, b"far" * 5000)
    transaction.write(1, size - 4, b"last")
    transaction.instant(2**62, fuzzy=False)
    transaction.commit()
    instant = repository.history.latest("big")
    assert instant.time_ns == 2**62
    (file,) = repository.history.files(instant)
    image = repository.history.open(instant, file)
    assert image.size == size
    assert image.read((1 << 49) + 6, 15003) == b"\0" + b"far" * 5000 + b"\0\0"
    assert image.read(size - 5, 100) == b"\0last"
