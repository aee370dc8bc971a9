"""After a pack that could not be written, none with a later number may be: it would be a gap."""

import os
from pathlib import Path
from random import Random

import pytest

from store.description import create_repository
from store.errors import ExistsError, FullError
from store.format.pack import pack_name
from store.keep.check import check
from store.objects.backend import DirectoryBackend
from store.repository import Repository
from tests.store.history import write_instants

SIZE = 70 << 20
"""Three packs."""


class TightBackend(DirectoryBackend):
    """Room for small objects only, once; then for all."""

    tight = True

    def create(self, name: str, content: bytes) -> None:
        if self.tight and len(content) > 16 << 20:
            self.tight = False
            raise FullError(f"{name}: no room")
        super().create(name, content)


def test_no_pack_is_sealed_after_one_that_failed(tmp_path: Path):
    create_repository(tmp_path / "repository")
    repository = Repository(tmp_path / "repository", tmp_path / "cache")
    content = Random(1).randbytes(SIZE)
    [first_ns] = write_instants(repository, "vm1", [b"first"])
    before = repository.backend.list(1)
    repository.reader.backend = TightBackend(repository.root)
    with pytest.raises(FullError):
        write_instants(repository, "vm1", [content])
    assert repository.backend.list(1) == before
    assert [instant.time_ns for instant in repository.history.instants("vm1")] == [first_ns]
    write_instants(repository, "vm1", [content])
    assert not check(repository, deep=False, progress=lambda _: None).findings
    repository.close()


def test_a_creation_that_was_swept_away_is_fenced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Another host that took the machine over sweeps between our fdatasync and our link."""
    backend = DirectoryBackend(tmp_path)
    backend.create(pack_name(1, 0), b"first")
    fdatasync = os.fdatasync

    def swept(descriptor: int) -> None:
        fdatasync(descriptor)
        DirectoryBackend(tmp_path).sweep(1)

    monkeypatch.setattr(os, "fdatasync", swept)
    with pytest.raises(ExistsError, match="took over"):
        backend.create(pack_name(1, 1), b"second")
    left = [path.name for path in (tmp_path / "packs" / "00000001").iterdir()]
    assert left == ["0000000000"]
