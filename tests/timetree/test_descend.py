"""Walking everything below a folder: deep, cyclic and damaged trees."""

import pytest

from store.errors import CorruptError, TimefsError
from tests.timetree.memory_tree import FailingFolder, MemoryFile, MemoryFolder
from timefs.tree import Folder, descend


def paths(folder: Folder) -> list[bytes]:
    return [path for path, _ in descend(folder)]


def test_parents_come_before_what_they_hold_in_the_order_of_the_listing():
    inner = MemoryFolder(b"inner", {b"x": MemoryFile(b"x", b""), b"y": MemoryFile(b"y", b"")})
    root = MemoryFolder(b"root", {b"b": inner, b"a": MemoryFile(b"a", b"")})
    assert paths(root) == [b"b", b"b/x", b"b/y", b"a"]


def test_ten_thousand_folders_within_each_other_are_walked():
    folder = MemoryFolder(b"end", {b"file": MemoryFile(b"file", b"")})
    for level in range(10_000):
        folder = MemoryFolder(b"%d" % level, {b"d": folder})
    *_, last = descend(folder)
    assert last[0].endswith(b"d/file")
    assert last[0].count(b"/") == 10_000


def test_a_folder_within_itself_is_named_and_not_entered():
    root = MemoryFolder(b"root", {})
    root.nodes[b"again"] = root
    root.nodes[b"file"] = MemoryFile(b"file", b"")
    assert paths(root) == [b"again", b"file"]


def test_a_folder_that_fails_is_told_of_and_the_rest_is_walked():
    bad = FailingFolder(b"bad", {b"seen": MemoryFile(b"seen", b"")}, CorruptError("torn"))
    root = MemoryFolder(b"root", {b"bad": bad, b"good": MemoryFile(b"good", b"")})
    told: list[tuple[bytes, str]] = []

    def tell(path: bytes, error: TimefsError) -> None:
        told.append((path, str(error)))

    walked = [path for path, _ in descend(root, b"v/", tell)]
    assert walked == [b"v/bad", b"v/bad/seen", b"v/good"]
    assert told == [(b"v/bad/", "torn")]
    with pytest.raises(CorruptError, match="torn"):
        paths(root)
