"""Digest maps: made again from packs they equal those that were kept."""

import random
from pathlib import Path

import numpy as np
import pytest

from store.description import create_repository
from store.format.digest import block_digest
from store.history import FileKind
from store.index.files import KnownFile
from store.log.digestmap import UNKNOWN_DIGEST, DigestMap
from store.repository import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    create_repository(tmp_path / "repo")
    return Repository(tmp_path / "repo", tmp_path / "cache")


def made(repository: Repository) -> tuple[KnownFile, list[bytes]]:
    """The map of file 1, made from index and packs."""
    state = repository.logs.state("vm1")
    (file,) = repository.logs.known_files(state)
    digest_map = repository.logs.digest_map(state, file)
    count = -(-file.size // 4096)
    digests = [bytes(digest.tobytes()) for digest in digest_map.blocks(0, count)] if count else []
    digest_map.discard()
    return file, digests


@pytest.mark.parametrize("seed", range(12))
def test_a_map_made_again_never_tells_a_wrong_digest(repository: Repository, seed: int):
    """It may say that it does not know; where it does, the digest is that of the bytes."""
    chosen = random.Random(seed)
    content = bytearray(chosen.choice([5_000, 12_288, 50_000, (4 << 20) + 9_000]))
    state = repository.logs.state("vm1")
    transaction = repository.logs.begin(state, 1)
    transaction.declare(1, "disk", FileKind.CONTAINER)
    transaction.resize(1, len(content))
    transaction.zero(1, 0, len(content))
    for _ in range(chosen.randrange(30)):
        length = chosen.choice([512, 4096, 9000])
        offset = chosen.randrange(0, min(len(content), 60_000), chosen.choice([1, 512, 4096]))
        piece = chosen.choice([bytes(length), chosen.randbytes(length)])[: len(content) - offset]
        content[offset : offset + len(piece)] = piece
        transaction.write(1, offset, piece)
    if seed % 3 == 0:
        del content[-1000:]
        transaction.resize(1, len(content))
    transaction.instant(1, fuzzy=False)
    transaction.commit()
    file, digests = made(repository)
    assert file.size == len(content)
    known = 0
    for number, digest in enumerate(digests):
        block = bytes(content[number * 4096 : (number + 1) * 4096]).ljust(4096, b"\0")
        right = {bytes(16)} if not any(block) else {block_digest(repository.keys.digest, block)}
        assert digest in right | {UNKNOWN_DIGEST}, number
        known += digest in right
    assert known or not digests or len(digests) < 20


def test_a_kept_map_is_used_at_its_position_only(tmp_path: Path):
    def fill(value: int, calls: list[int]) -> None:
        calls.append(value)

    calls: list[int] = []
    first = DigestMap(tmp_path / "maps/one", 10_000, 0)
    first.open(5, lambda empty: empty.blocks(0, 3).fill(7))
    first.keep(6)
    first.discard()
    for position, size, lost, used in (
        (6, 10_000, 0, True),
        (5, 10_000, 0, False),
        (6, 9_999, 0, False),
        (6, 10_000, 1, False),
    ):
        calls.clear()
        again = DigestMap(tmp_path / "maps/one", size, lost)
        again.open(position, lambda _empty: fill(1, calls))
        assert (calls == []) == used
        assert bool((again.blocks(0, 3) == 7).all()) == used
        again.discard()
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["one"]


@pytest.mark.parametrize("at", [0, 9, 17, 25, 33, 63, 64, 100, -1])
def test_a_flipped_bit_in_a_kept_map_is_noticed(tmp_path: Path, at: int):
    path = tmp_path / "one"
    first = DigestMap(path, 40_000, 0)
    first.open(5, lambda empty: empty.blocks(0, 10).fill(7))
    first.keep(6)
    first.discard()
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    made_again: list[DigestMap] = []
    again = DigestMap(path, 40_000, 0)
    again.open(6, made_again.append)
    assert made_again == [again]
    again.discard()


def test_holes_of_a_map_stay_holes_and_are_not_read(tmp_path: Path):
    path = tmp_path / "one"
    size = 1 << 40
    first = DigestMap(path, 0, 0)
    first.open(0, lambda _empty: None)
    first.resize(size)
    first.blocks(1 << 27, 1)[:] = np.uint64(3)
    first.keep(6)
    first.discard()
    assert path.stat().st_blocks * 512 < 1 << 20
    again = DigestMap(path, size, 0)
    again.open(6, lambda _empty: pytest.fail("the kept map was not believed"))
    filled = list(again.filled(0, size // 4096))
    assert sum(end - start for start, end in filled) < 10_000
    assert any(start <= 1 << 27 < end for start, end in filled)
    assert again.blocks(1 << 27, 1).tolist() == [[3, 3]]
    again.discard()


def test_a_working_copy_of_a_dead_process_is_swept(tmp_path: Path):
    (tmp_path / "one.1.new").write_bytes(b"left")
    digest_map = DigestMap(tmp_path / "one", 0, 0)
    digest_map.open(0, lambda _empty: None)
    assert not (tmp_path / "one.1.new").exists()
    digest_map.discard()
