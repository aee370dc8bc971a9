"""A bit that flips in the text of a table's definition: SQLite quotes it, and it is no UTF-8."""

import pytest

from store.repository import Repository
from tests.store.test_index import CONTENTS, contents, index_file, repository

__all__ = ["repository"]


@pytest.mark.parametrize("byte", [0x80, 0xA0, 0xF5, 0xFF])
def test_the_index_is_made_again(repository: Repository, byte: int):
    repository.close()
    damaged = bytearray(index_file(repository).read_bytes())
    damaged[damaged.index(b"CREATE TABLE events") + len("CREATE ")] = byte
    index_file(repository).write_bytes(damaged)
    again = Repository(repository.root, repository.cache.parent)
    assert contents(again) == CONTENTS
    again.close()
