"""The directory backend."""

import errno
import gc
import os
from pathlib import Path

import pytest

from store.errors import DeniedError, FullError, NotFoundError, ReadOnlyError, TimefsError
from store.format.pack import pack_name
from store.objects.backend import DirectoryBackend, translate
from tests.store.backend_conformance import BackendConformance


class TestDirectory(BackendConformance):
    @pytest.fixture
    def backend(self, tmp_path: Path) -> DirectoryBackend:
        return DirectoryBackend(tmp_path)


def test_what_a_creation_left_unfinished_is_no_object_and_is_swept(tmp_path: Path):
    backend = DirectoryBackend(tmp_path)
    backend.create(pack_name(1, 0), b"whole")
    left = tmp_path / "packs/00000001/.0000000001.123.abcd"
    left.write_bytes(b"half")
    assert backend.list(1) == [0]
    assert backend.sizes(1) == {0: 5}
    backend.sweep(1)
    assert not left.exists()


def test_nothing_is_left_beside_an_object(tmp_path: Path):
    backend = DirectoryBackend(tmp_path)
    backend.create(pack_name(1, 0), b"whole")
    assert [path.name for path in (tmp_path / "packs/00000001").iterdir()] == ["0000000000"]


def test_many_objects_do_not_hold_as_many_descriptors(tmp_path: Path):
    gc.collect()  # what earlier tests left open
    backend = DirectoryBackend(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(600):
        path = tmp_path / pack_name(1, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
        assert backend.read(pack_name(1, number), 0, 1)
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 300
    backend.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, FullError),
        (errno.EDQUOT, FullError),
        (errno.EROFS, ReadOnlyError),
        (errno.EACCES, DeniedError),
        (errno.EPERM, DeniedError),
        (errno.ENOENT, NotFoundError),
        (errno.EIO, TimefsError),
    ],
)
def test_an_error_of_the_system_becomes_one_of_ours(number: int, kind: type[TimefsError]):
    error = translate(OSError(number, os.strerror(number)), "here")
    assert type(error) is kind
    assert str(error).startswith("here: ")
    assert "\n" not in str(error)
