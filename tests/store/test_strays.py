"""What others leave or put among the packs costs no machine anything."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from store.description import create_repository
from store.errors import DamagedError, UnsupportedError
from store.format.limits import EPOCH_MAX
from store.format.pack import NO_HEAD, PackIdentity, build_pack, pack_name
from store.format.row import ROW, Row, RowKind
from store.format.statement import PackReference, encode_statement
from store.keep.check import check
from store.repository import Repository
from tests.fuzz.bounds import bounded_case, bounded_memory
from tests.store.history import write_instants

LEFT = ["lost+found/", "@eaDir/", ".DS_Store", "Thumbs.db", "00000001/.DS_Store", "0000000G/",
        "00000001/20261128", "00000001/99999999999", "00000001/0000000001~", "1/"]  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    create_repository(tmp_path / "repo")
    repository = Repository(tmp_path / "repo", tmp_path / "cache")
    write_instants(repository, "vm1", [b"one"])
    return repository


def newest(repository: Repository) -> bytes:
    instant = repository.history.latest("vm1")
    (state,) = repository.history.files(instant)
    return repository.history.open(instant, state).read(0, 3)


def anew(repository: Repository, tmp_path: Path) -> Repository:
    return Repository(repository.root, tmp_path / "another cache")


def leave(root: Path, name: str) -> None:
    path = root / "packs" / name
    if name.endswith("/"):
        path.mkdir()
    else:
        path.write_bytes(b"")


@pytest.mark.parametrize("name", LEFT)
def test_what_other_systems_leave_is_passed_over_and_said_once(
    repository: Repository, tmp_path: Path, name: str
):
    leave(repository.root, name)
    for each in (repository, anew(repository, tmp_path)):
        assert each.history.machines() == ["vm1"]
        assert newest(each) == b"one"
        (finding,) = check(each, deep=True, progress=lambda _: None).findings
        assert not finding.damage
        assert name.rstrip("/") in finding.message
    write_instants(repository, "vm1", [b"two"])
    assert newest(anew(repository, tmp_path)) == b"two"


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("leave_it", [folder, loop, dangling])
@pytest.mark.parametrize("name", [pack_name(1, 2), pack_name(1, 9), pack_name(9, 0)])
def test_what_is_named_like_a_pack_and_is_no_file_is_no_pack(
    repository: Repository, tmp_path: Path, leave_it: Callable[[Path], None], name: str
):
    path = repository.root / name
    path.parent.mkdir(exist_ok=True)
    leave_it(path)
    for each in (repository, anew(repository, tmp_path)):
        assert each.history.machines() == ["vm1"]
        assert newest(each) == b"one"
        assert any(
            name in finding.message
            for finding in check(each, deep=True, progress=lambda _: None).findings
        )
    write_instants(repository, "vm2", [b"two"])
    assert anew(repository, tmp_path).history.machines() == ["vm1", "vm2"]


def test_a_new_machine_passes_over_numbers_that_others_took(repository: Repository):
    (repository.root / "packs/00000002").mkdir()
    (repository.root / "packs/ffffffff").mkdir()
    write_instants(repository, "vm2", [b"two"])
    assert repository.logs.state("vm2").writer == 3


@pytest.mark.parametrize("number", [6000, 20_261_128, 2**32 - 1])
def test_a_file_far_beyond_the_newest_pack_is_named_and_not_taken_for_a_loss(
    repository: Repository, tmp_path: Path, number: int
):
    (repository.root / pack_name(1, number)).write_bytes(b"")
    for each in (repository, anew(repository, tmp_path)):
        with bounded_case(number, b"", tmp_path):
            assert newest(each) == b"one"
        assert any(
            f"{number:010}" in finding.message
            for finding in check(each, deep=False, progress=lambda _: None).findings
        )


def row(kind: RowKind, **fields: int) -> Row:
    return Row(kind, 0, 1, 0, 0, 1, 10**18, 0, 0, 0)._replace(**fields)


FILE = row(RowKind.FILE, offset=1)
CLAIMS = {
    "an epoch beyond all": ([row(RowKind.INSTANT)], 2**24),
    "a size beyond all": ([FILE, row(RowKind.RESIZE, offset=2**63 + 5)], 1),
    "a row of a pebibyte": ([FILE, row(RowKind.RESIZE, offset=2**40),
                             row(RowKind.DATA, length=2**50)], 1),
    "zeros beyond all": ([FILE, row(RowKind.ZERO, length=2**62)], 1),
    "a huge file": ([FILE, row(RowKind.RESIZE, offset=2**56), row(RowKind.ZERO, length=2**56)], 1),
    "a kind of the future": ([row(RowKind.INSTANT)._replace(kind=77)], 1),
    "one sequence twice": ([FILE, row(RowKind.RESIZE, offset=9), row(RowKind.RESIZE, offset=8)], 1),
    "a pack of no writer": ([FILE, row(RowKind.RESIZE, offset=4096),
                             row(RowKind.DATA, length=4096, pack=1)], 1),
    "zeros of a file that was never declared": ([row(RowKind.ZERO, length=9, file=9),
                                                 row(RowKind.INSTANT)], 1),
    "the last epoch and sequence": ([row(RowKind.INSTANT)], EPOCH_MAX),
    "times before all": ([row(RowKind.INSTANT, time_ns=-(2**63))], 1),
}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
def test_what_a_pack_claims_costs_its_own_machine_alone(
    repository: Repository, tmp_path: Path, claim: str
):
    rows, epoch = CLAIMS[claim]
    twice = claim == "one sequence twice"
    rows = [each._replace(sequence=1 if twice else at) for at, each in enumerate(rows, 1)]
    identity = PackIdentity(
        bytes.fromhex(repository.id), 7, 0, epoch, bytes(16), 1, last=True, previous=NO_HEAD
    )
    packs = [PackReference(0, 0)] if claim == "a pack of no writer" else []
    listed = np.array([tuple(each) for each in rows], ROW)
    statement = encode_statement(listed, packs, ["evil", "a"])
    repository.backend.create(pack_name(7, 0), build_pack(identity, [], b"", statement))
    with bounded_memory():
        for each in (repository, anew(repository, tmp_path)):
            with bounded_case(0, b"", tmp_path):
                assert "vm1" in each.history.machines()
                assert newest(each) == b"one"
                check(each, deep=True, progress=lambda _: None)
            with suppress(DamagedError, UnsupportedError):
                each.logs.known_files(each.logs.state("evil"))
    write_instants(repository, "vm1", [b"two"])
    assert newest(anew(repository, tmp_path)) == b"two"
