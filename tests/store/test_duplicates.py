"""The duplicate search finds every exact duplicate, as far as it says it looks."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

import store.log.duplicates
from store.description import create_repository
from store.errors import DamagedError
from store.format.row import DIGEST_BYTES
from store.history import FileKind
from store.log.duplicates import DuplicateSearch, digest_table
from store.log.transaction import Committed, SealPolicy
from store.repository import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    create_repository(tmp_path / "repo")
    return Repository(tmp_path / "repo", tmp_path / "cache", seal=SealPolicy(blocks=100))


def write(
    repository: Repository, machine: str, content: bytes, *, give_up: bool = False
) -> Committed | None:
    repository.logs.notice_losses()
    state = repository.logs.state(machine)
    time_ns = repository.history.now_ns()
    transaction = repository.logs.begin(state, time_ns)
    transaction.declare(1, "disk", FileKind.CONTAINER)
    transaction.resize(1, len(content))
    transaction.write(1, 0, content)
    if give_up:
        transaction.abandon()
        return None
    transaction.instant(time_ns, fuzzy=False)
    committed = transaction.commit()
    instant = repository.history.latest(machine)
    (file,) = repository.history.files(instant)
    assert repository.history.open(instant, file).read(0, file.size) == content
    return committed


def blocks(count: int, seed: int = 1) -> list[bytes]:
    chosen = random.Random(seed)
    return [chosen.randbytes(4096) for _ in range(count)]


def new_bytes(committed: Committed | None) -> int:
    assert committed is not None
    return committed.new_bytes


def test_a_block_twice_in_one_write_is_stored_once(repository: Repository):
    several = blocks(10)
    assert new_bytes(write(repository, "vm1", b"".join(several * 5))) == 10 * 4096


def test_duplicates_are_found_across_the_packs_of_one_transaction(repository: Repository):
    """The second copy crosses ends of packs at other blocks than the first."""
    several = blocks(250)
    content = b"".join(several) + b"".join(blocks(30, 2)) + b"".join(reversed(several))
    assert new_bytes(write(repository, "vm1", content)) == 280 * 4096


def test_a_machines_newest_packs_are_probed_for_every_block(repository: Repository):
    several = blocks(500)
    write(repository, "vm1", b"".join(several))
    random.Random(3).shuffle(several)
    assert new_bytes(write(repository, "vm1", b"".join(several))) == 0


def test_what_a_killed_capture_sealed_is_found(repository: Repository):
    content = b"".join(blocks(250))
    write(repository, "vm1", content, give_up=True)
    sealed = sum(size > 400_000 for size in repository.backend.sizes(1).values())
    assert sealed
    assert new_bytes(write(repository, "vm1", content)) == (250 - 100 * sealed) * 4096


def test_samples_find_what_another_machine_stored_in_order(repository: Repository):
    content = b"".join(blocks(1000))
    write(repository, "vm1", content)
    assert new_bytes(write(repository, "vm2", content)) == 0


def test_a_damaged_pack_serves_no_duplicates_and_hinders_nobody(repository: Repository):
    content = b"".join(blocks(250))
    write(repository, "vm1", content)
    repository.history.machines()
    for path in (repository.root / "packs/00000001").iterdir():
        if path.name != "0000000000":
            path.write_bytes(path.read_bytes()[:-1])
    repository.backend.close()
    assert new_bytes(write(repository, "vm2", content)) == 250 * 4096


def test_the_newest_digests_are_kept_within_bounds_the_oldest_go(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store.log.duplicates, "RECENT_MAX", 300)
    search = DuplicateSearch(repository.reader, lambda _prefixes: [], [])
    chosen = random.Random(1)
    packs = [chosen.randbytes(100 * DIGEST_BYTES) for _ in range(20)]
    for number, digests in enumerate(packs):
        search.sealed(digests, 1, number)
    assert search.find(packs[-1]).tolist() == [[1, 19, slot] for slot in range(100)]
    assert not search.find(packs[0]).any()
    assert sum(bool(search.find(digests).any()) for digests in packs) <= 4


def test_equal_first_halves_are_told_apart(repository: Repository):
    """Digests that agree in 64 bits are not the same block."""
    search = DuplicateSearch(repository.reader, lambda _prefixes: [], [])
    same = bytes(8)
    search.sealed(same + b"a" * 8 + b"zzzzzzzz" * 2, 1, 5)
    assert search.find(same + b"a" * 8).tolist() == [[1, 5, 0]]
    assert search.find(same + b"b" * 8).tolist() == [[0, 0, 0]]
    table = digest_table(same + b"a" * 8, 1, 5)
    assert table.places.tolist() == [[1, 5, 0]]


def test_sampled_packs_are_found_though_few_are_kept(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store.log.duplicates, "LOADED_MAX", 2)
    for seed in range(6):
        write(repository, f"vm{seed}", b"".join(blocks(100, seed)))
    repository.history.machines()

    def samples(prefixes: Sequence[int]) -> list[tuple[int, int]]:
        question = "SELECT writer, number FROM samples WHERE prefix = ?"
        return [row for prefix in prefixes for row in repository.index.ask(question, prefix)]

    search = DuplicateSearch(repository.reader, samples, [])
    for writer in range(1, 7):
        digests = repository.reader.all_digests(writer, 1)
        assert search.find(digests)[:, 0].tolist() == [writer] * 100


def test_digests_of_a_pack_that_lies_are_not_used(repository: Repository):
    content = b"".join(blocks(100))
    write(repository, "vm1", content)
    path = repository.root / "packs/00000001/0000000001"
    stored = bytearray(path.read_bytes())
    envelope = repository.reader.table(1, 1).envelope
    stored[envelope.digests_offset] ^= 1
    path.write_bytes(stored)
    with pytest.raises(DamagedError, match="digests"):
        repository.reader.all_digests(1, 1)
    assert len(repository.reader.whole_digests(1, 1)) == 100 * DIGEST_BYTES


def test_the_newest_digests_are_kept_and_few_are_forgotten_at_once(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(store.log.duplicates, "RECENT_MAX", 256)
    monkeypatch.setattr(store.log.duplicates, "TABLE_MAX", 64)
    search = DuplicateSearch(repository.reader, lambda _prefixes: (), [])
    packs = [random.Random(number).randbytes(8 * DIGEST_BYTES) for number in range(100)]
    for number, digests in enumerate(packs):
        search.sealed(digests, 1, number)
        known = [search.find(each)[:, 0].all() for each in packs[: number + 1]]
        kept = min(number + 1, (256 - 64) // 8)
        assert all(known[len(known) - kept :])
        assert sum(known) * 8 <= 256
