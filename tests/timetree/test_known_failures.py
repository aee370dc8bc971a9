"""What failed for good is not tried again at each request; what may be mended is."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from store.budget import spend
from store.errors import CorruptError, CostError, DamagedError, NotFoundError, TimefsError
from store.image import Image
from tests.timetree.memory_history import MemoryHistory
from tests.timetree.memory_tree import MemoryFolder
from timefs.guest.siblings import Find
from timefs.times import SECOND_NS
from timefs.timetree import TimeTree
from timefs.timetree.disks import GUEST_DISKS, DiskParsers
from timefs.tree import Entry, Folder, Node, walk

TEN = 1_714_557_600 * SECOND_NS


class Broken(MemoryFolder):
    """A folder of a volume of which each question is answered by an error, and counted."""

    error: ClassVar[TimefsError]
    asked = 0

    def _fail(self) -> None:
        Broken.asked += 1
        raise Broken.error

    def lookup(self, name: bytes) -> Node:
        if self.identity.endswith(b"/broken"):
            self._fail()
        return super().lookup(name)

    def entries(self) -> Iterator[Entry]:
        if self.identity.endswith(b"/broken"):
            self._fail()
        yield from super().entries()


def volume(disk: Image, identity: bytes, time_ns: int) -> Folder:
    del disk, time_ns
    return Broken(identity, {b"broken": Broken(identity + b"/broken", {})})


def decode(image: Image, find: Find) -> Image:
    del find
    return image


def references(image: Image) -> Sequence[str]:
    del image
    return ()


def always(file: Image, find: Find) -> bool:
    del file, find
    return True


DISKS = GUEST_DISKS._replace(
    decode=decode, references=references, has_volumes=always,
    volume_folder=volume, partitions_folder=volume,
)  # fmt: skip


def instant(parsers: DiskParsers) -> Folder:
    history = MemoryHistory(TEN + SECOND_NS)
    history.seal("vm1", TEN, {"disk.img": b"a disk", "other.img": b"another"})
    found = walk(TimeTree(history, parsers=parsers).root, [b"vm1", b"latest"])
    assert isinstance(found, Folder)
    return found


def ask(folder: Folder, name: bytes) -> None:
    with pytest.raises(type(Broken.error), match=str(Broken.error)):
        folder.lookup(name)


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (CorruptError("a damaged folder"), 1),
        (CostError("a costly folder"), 1),
        (DamagedError("a pack that may be mended"), 3),
        (NotFoundError("no such name"), 3),
    ],
)
def test_a_lookup_that_failed_for_good_is_not_made_again(error: TimefsError, times: int):
    broken = walk(instant(DISKS), [b"disk", b"broken"])
    assert isinstance(broken, Folder)
    Broken.error, Broken.asked = error, 0
    for _ in range(3):
        ask(broken, b"name")
    assert Broken.asked == times
    ask(broken, b"another")
    assert Broken.asked == times + 1


def test_a_listing_that_failed_for_good_is_not_made_again():
    broken = walk(instant(DISKS), [b"disk", b"broken"])
    assert isinstance(broken, Folder)
    Broken.error, Broken.asked = CostError("a costly folder"), 0
    for entries in (broken.entries, broken.entries_with_attributes, broken.entries):
        with pytest.raises(CostError, match="a costly folder"):
            list(entries())
    assert Broken.asked == 1


def test_a_volume_that_cannot_be_opened_is_tried_once():
    tried: list[bytes] = []

    def opening(disk: Image, identity: bytes, time_ns: int) -> Folder:
        tried.append(identity)
        raise CorruptError("no volume")

    disk = walk(instant(DISKS._replace(volume_folder=opening)), [b"disk"])
    assert isinstance(disk, Folder)
    for name in (b"a", b"b", b"c"):
        with pytest.raises(CorruptError, match="no volume"):
            disk.lookup(name)
    assert len(tried) == 1


def test_a_disk_that_costs_too_much_to_recognise_hides_no_other():
    def costly(file: Image, find: Find) -> bool:
        while file.read(0, 1) and file.size == len(b"a disk"):
            spend(1 << 20)
        return True

    top = instant(DISKS._replace(has_volumes=costly))
    names = {entry.name for entry in top.entries()}
    assert {b"disk", b"disk.d", b"disk.img", b"other", b"other.d", b"other.img"} <= names
