"""Within a volume two nodes share an identity exactly if they are links of one another.

An identity is what caches, the kernel and every walk know a node by, so one that two nodes share
shows the content of one in the place of the other.
"""

import os
from collections import defaultdict
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.image import BytesImage
from tests.guest.kernel import tree_walk
from tests.guest.volumes import KINDS, all_kinds, made
from timefs.guest.slot import part_identity
from timefs.tree import Folder, Leaf, Link

pytestmark = [pytest.mark.system, pytest.mark.root]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Those made so far, by kind."""
    return Made(tmp_path_factory.mktemp("volumes"))


class Made(dict[str, tuple[Path, Path]]):
    """Volumes, made when they are asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, kind: str) -> tuple[Path, Path]:
        self[kind] = made(kind, self._folder)
        return self[kind]


def root_of(kind: str, volume: Path) -> Folder:
    return KINDS[kind].open(BytesImage(volume.read_bytes()), b"volume").root


def linked(top: Path) -> set[frozenset[bytes]]:
    """The paths below a folder, those of one file together; each symbolic link reads otherwise."""
    files: dict[object, set[bytes]] = defaultdict(set)
    for path in top.rglob("*"):
        found = path.lstat()
        key = path if path.is_symlink() else found.st_ino
        files[key].add(os.fsencode(path.relative_to(top)))
    return {frozenset(paths) for paths in files.values()}


@all_kinds
def test_two_nodes_share_an_identity_exactly_if_they_are_links_of_one_another(
    kind: str, volumes: dict[str, tuple[Path, Path]]
):
    volume, top = volumes[kind]
    root = root_of(kind, volume)
    known: dict[bytes, set[bytes]] = defaultdict(set)
    known[root.identity].add(b"")
    for path, node in tree_walk(root):
        known[node.identity].add(path)
        if kind == "ntfs" and isinstance(node, Leaf):
            stream = dict(node.xattrs()).get(b"user.stream")
            folder, _, name = path.rpartition(b"/")
            if stream is not None and not folder:
                known[root.lookup(name + b":stream").identity].add(path + b":stream")
    found = {frozenset(paths) for paths in known.values()}
    expected = linked(top)
    assert found >= expected | {frozenset({b""})}
    assert all(len(paths) == 1 for paths in found - expected)  # lost+found, streams


@all_kinds
def test_a_node_is_the_same_whichever_way_it_is_had(
    kind: str, volumes: dict[str, tuple[Path, Path]]
):
    volume, top = volumes[kind]
    root = root_of(kind, volume)
    folders = [node for _, node in tree_walk(root) if isinstance(node, Folder)]
    met = 0
    for folder in [root, *folders]:
        listed = dict(folder.entries())
        for name, node, attributes in chain.from_iterable(folder.entries_with_attributes()):
            met += 1
            again = folder.lookup(name)
            assert again.identity == node.identity == listed[name].identity
            assert type(again) is type(node) is type(listed[name])
            assert again.attributes() == node.attributes() == (attributes or node.attributes())
            if isinstance(node, Leaf):
                made_again = folder.leaf_again(node.identity)
                assert isinstance(made_again, Leaf)
                assert made_again.identity == node.identity
                assert made_again.attributes() == node.attributes()
                content = made_again.open()
                assert content.read(0, content.size) == node.open().read(0, content.size)
    assert met >= len(list(top.rglob("*")))


@all_kinds
def test_each_path_holds_what_was_written_there(kind: str, volumes: dict[str, tuple[Path, Path]]):
    volume, top = volumes[kind]
    found = dict(tree_walk(root_of(kind, volume)))
    for path in top.rglob("*"):
        node = found[os.fsencode(path.relative_to(top))]
        if path.is_symlink():
            assert isinstance(node, Link)
            assert node.target() == os.fsencode(path.readlink())
        elif path.is_dir():
            assert isinstance(node, Folder)
        else:
            assert isinstance(node, Leaf)
            content = node.open()
            assert content.read(0, content.size) == path.read_bytes()


@given(st.lists(st.lists(st.binary(max_size=9), min_size=1, max_size=4), min_size=2, max_size=6))
def test_no_names_of_a_part_make_the_identity_of_another(names: list[list[bytes]]):
    different = {tuple(each) for each in names}
    made_of_them = {part_identity(*each) for each in different}
    assert len(made_of_them) == len(different)
    assert len({len(each) for each in made_of_them}) == 1
