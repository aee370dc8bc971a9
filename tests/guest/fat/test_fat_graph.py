"""Folders that form a graph: every walk ends, and each folder's content has one place."""

import subprocess
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from store.errors import CorruptError, TimefsError
from tests.fuzz.bounds import bounded_case, bounded_memory
from tests.guest.fat.sketch import FOLDER, ExfatSketch, Sketch, dots, entry, exfat_set, folder
from tests.timetree.memory_history import MemoryHistory
from timefs.mount.mounting import mounted
from timefs.restore import Restore
from timefs.timetree import TimeTree
from timefs.tree import Folder, Leaf, descend, walk

LEVELS = 60
TEN = 1_714_557_600 * 10**9
Draw = Callable[[], Sketch]


def two_entries() -> Sketch:
    """A and B are one folder."""
    sketch = Sketch(16, 5000)
    sketch.fill(0, folder(b"A", 5), folder(b"B", 5))
    sketch.fill(5, dots(5, 0), entry(b"FILE"))
    sketch.chain(5)
    return sketch


def ladder() -> Sketch:
    """Each folder is there twice in the one above: 2^60 paths lead down."""
    sketch = Sketch(32, 70_000)
    sketch.fill(2, folder(b"A", 3), folder(b"B", 3))
    for cluster in range(3, 3 + LEVELS):
        sketch.fill(cluster, dots(cluster, cluster - 1),
                    folder(b"A", cluster + 1), folder(b"B", cluster + 1))  # fmt: skip
        sketch.chain(cluster)
    sketch.chain(3 + LEVELS)
    return sketch


def circle() -> Sketch:
    """A holds itself, its parent and, in B, the root."""
    sketch = Sketch(32, 70_000)
    sketch.fill(2, folder(b"A", 3))
    sketch.fill(3, dots(3, 0), folder(b"SELF", 3), folder(b"UP", 2), folder(b"B", 4))
    sketch.fill(4, dots(4, 3), folder(b"ROOT", 2), folder(b"ZERO", 0), folder(b"A", 3))
    sketch.chain(3)
    sketch.chain(4)
    return sketch


def common_end() -> Sketch:
    """Chains of many folders that go on in the same clusters, which hold many names."""
    sketch = Sketch(16, 60_000)
    shared = range(1000, 3000)
    sketch.chain(*shared)
    sketch.fill(shared[0], b"".join(entry(b"N%07d" % number) for number in range(16 * len(shared))))
    first = range(100, 600)
    sketch.fill(0, *(folder(b"F%d" % cluster, cluster) for cluster in first))
    for cluster in first:
        sketch.fill(cluster, *[entry(b"\xe5")] * 16)
        sketch.point(cluster, shared[0])
    return sketch


def overlapping() -> Sketch:
    """exFAT's folders without a chain: each takes what all others take but for one cluster."""
    sketch = ExfatSketch(4000)
    names = b"".join(exfat_set(f"name {number}") for number in range(16_000))
    sketch.fill(500, names)
    sets = b"".join(
        exfat_set(f"folder {number}", 500 + number, FOLDER, 3000 * 512, together=True)
        for number in range(300)
    )
    sketch.fill(2, sets)
    sketch.chain(*range(2, 2 + -(-len(sets) // 512)))
    return sketch


def exfat_circle() -> Sketch:
    """The same as `circle` in exFAT."""
    sketch = ExfatSketch(500)
    sketch.fill(2, exfat_set("a", 3, FOLDER, 512))
    sketch.fill(3, exfat_set("self", 3, FOLDER, 512), exfat_set("up", 2, FOLDER, 512),
                exfat_set("into", 4, FOLDER, 1024))  # fmt: skip
    sketch.fill(4, exfat_set("file", 0))
    sketch.chain(3)
    sketch.chain(4, 5)
    sketch.point(5, 4)
    return sketch


def endless_chain() -> Sketch:
    """A folder and a file whose chains have no end."""
    sketch = Sketch(16, 60_000)
    sketch.fill(0, folder(b"A", 3), entry(b"FILE", 5, size=1 << 30))
    for cluster in (3, 4, 5, 6):
        sketch.fill(cluster, *[entry(b"X%d" % cluster)] * 16)
    for cluster, following in ((3, 4), (4, 3), (5, 6), (6, 5)):
        sketch.point(cluster, following)
    return sketch


def longest_chain() -> Sketch:
    """A folder of all clusters that there are, backwards."""
    sketch = Sketch(32, 200_000)
    sketch.fill(2, folder(b"A", 200_000))
    sketch.chain(*range(200_000, 2, -1))
    return sketch


def claims() -> Sketch:
    """exFAT's folders and files that claim more than there is."""
    sketch = ExfatSketch(2000)
    sizes = (513, 2000 * 512, 1 << 31, 1 << 40, 1 << 63, (1 << 64) - 1)
    sets = [exfat_set(f"{kind} {size} {together}", 3, kind, size, together=together)
            for size in sizes for kind in (0, FOLDER) for together in (False, True)]  # fmt: skip
    content = b"".join(sets)
    sketch.fill(10, content)
    sketch.chain(2, *range(10, 10 + -(-len(content) // 512)))
    sketch.fill(2, *[b"\x05" + bytes(31)] * 16)
    return sketch


DRAWN = (two_entries, ladder, circle, common_end, overlapping, exfat_circle, endless_chain,
         longest_chain, claims)  # fmt: skip
hostile = pytest.mark.parametrize("draw", DRAWN)


@hostile
def test_every_walk_ends_in_time_and_memory(draw: Draw, tmp_path: Path):
    sketch = draw()
    failed: list[TimefsError] = []
    with bounded_memory(), bounded_case(0, bytes(sketch.content), tmp_path):
        root = sketch.open().root
        met = sum(1 for _ in descend(root, failed=lambda _path, error: failed.append(error)))
    assert met <= len(sketch.content) // 32
    assert all(isinstance(error, CorruptError) for error in failed)


@hostile
def test_each_operation_ends_in_time_and_memory(draw: Draw, tmp_path: Path):
    sketch = draw()
    content = bytes(sketch.content)
    root = sketch.open().root
    with bounded_memory():
        for path, node in islice(descend(root, failed=lambda _path, _error: None), 100):
            with bounded_case(0, content, tmp_path):
                attempt(root, path)
            if isinstance(node, Leaf):
                with bounded_case(0, content, tmp_path):
                    attempt_to_read(node)


def attempt(root: Folder, path: bytes) -> None:
    try:
        node = walk(root, path.split(b"/"))
        node.attributes()
        if isinstance(node, Folder):
            list(node.entries_with_attributes())
    except CorruptError:
        pass


def attempt_to_read(leaf: Leaf) -> None:
    try:
        image = leaf.open()
        for offset in (0, max(0, image.size - 4096)):
            image.read(offset, 4096)
    except CorruptError:
        pass


@pytest.mark.parametrize(
    "draw",
    [each for each in DRAWN if each not in (common_end, overlapping)],  # not so many files
)
def test_a_restore_ends_and_says_what_is_missing(draw: Draw, tmp_path: Path):
    sketch = draw()
    with bounded_case(0, bytes(sketch.content), tmp_path):
        failed: list[TimefsError] = []
        restore = Restore(lambda _bytes: None, failed.append, force=False)
        restore.run(sketch.open().root, b"root", tmp_path / "out")
    assert failed
    assert all(isinstance(error, CorruptError) for error in failed)


def test_the_second_entry_of_a_folder_says_where_its_content_is_shown():
    sketch = two_entries()
    root = sketch.open().root
    first, second = (walk(root, [name]) for name in (b"A", b"B"))
    assert isinstance(first, Folder)
    assert isinstance(second, Folder)
    assert first.identity != second.identity
    assert [name for name, _ in first.entries()] == [b"FILE"]
    for _ in range(2):
        with pytest.raises(CorruptError, match="its clusters are shown already, in the folder"):
            list(second.entries())
        with pytest.raises(CorruptError, match="its clusters are shown already, in the folder"):
            second.lookup(b"FILE")
    assert [name for name, _ in first.entries()] == [b"FILE"]
    assert isinstance(first.lookup(b"FILE"), Leaf)


def test_a_folder_that_leads_back_to_the_root_is_no_root():
    root = circle().open().root
    for path, why in (
        ([b"A", b"SELF"], "shown already, in the folder"),
        ([b"A", b"UP"], "shown already, in the root"),
        ([b"A", b"B", b"ROOT"], "shown already, in the root"),
        ([b"A", b"B", b"ZERO"], "got 0"),
    ):
        node = walk(root, path)
        assert isinstance(node, Folder)
        with pytest.raises(CorruptError, match=why):
            list(node.entries())


@pytest.mark.system
@pytest.mark.root
@pytest.mark.usefixtures("fuse")
@pytest.mark.parametrize("draw", [ladder, circle, exfat_circle])
def test_a_walk_through_a_mount_ends(draw: Draw, tmp_path: Path):
    history = MemoryHistory(TEN)
    history.seal("vm1", TEN, {"disk.img": bytes(draw().content)})
    with mounted(TimeTree(history).root, tmp_path):
        walked = subprocess.run(
            ["find", tmp_path / "vm1" / "latest" / "disk"],
            capture_output=True, timeout=60, check=False,
        )  # fmt: skip
    assert 2 < walked.stdout.count(b"\n") < 4 * LEVELS
    assert b"Input/output error" in walked.stderr
