"""A pack that is sealed while the index looks for it is not taken for lost."""

from pathlib import Path

from store.description import create_repository
from store.index.index import Index
from store.objects.backend import DirectoryBackend
from store.packs.reader import PackReader
from store.repository import Repository
from tests.store.history import write_instants


class LateBackend(DirectoryBackend):
    """Says twice that a pack is not there which, a moment later, is listed with others."""

    def __init__(self, root: Path, late: str) -> None:
        super().__init__(root)
        self._late = late
        self._times = 2

    def exists(self, name: str) -> bool:
        if name == self._late and self._times:
            self._times -= 1
            return False
        return super().exists(name)


def test_a_pack_that_appears_between_two_looks_is_taken_in(tmp_path: Path):
    create_repository(tmp_path / "repo")
    repository = Repository(tmp_path / "repo", tmp_path / "cache")
    instants = write_instants(repository, "vm1", [b"one", b"two", b"three"])
    backend = LateBackend(tmp_path / "repo", "packs/00000001/0000000002")
    reader = PackReader(backend, bytes.fromhex(repository.id), repository.keys)
    index = Index(tmp_path / "again", bytes.fromhex(repository.id))
    index.follow(reader)
    assert index.ask("SELECT * FROM lost") == []
    assert len(index.ask("SELECT * FROM instants")) == len(instants)
