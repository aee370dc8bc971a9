"""How disks are shown in an instant: names, clashes, damage, nodes that outlive their volumes."""

from collections.abc import Iterator, Mapping

import pytest

from store.errors import CorruptError, DamagedError, DeniedError, NotFoundError, UnsupportedError
from store.image import Extent, Image
from tests.timetree import toy_disks
from tests.timetree.memory_history import MemoryHistory
from tests.timetree.toy_disks import TOY_DISKS
from timefs.times import SECOND_NS, Names
from timefs.timetree import TimeTree
from timefs.timetree.opened import GUESTS_MAX
from timefs.tree import Folder, Leaf, Link, Node, descend, walk

TEN = 1_714_557_600 * SECOND_NS
DISK = b"TOY:FS:a=alpha,b=beta"


class Unreadable(Image):
    @property
    def size(self) -> int:
        return 1000

    def read_into(self, offset: int, buffer: memoryview) -> int:
        raise DamagedError("pack 9: checksum differs")

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        raise DamagedError("pack 9: checksum differs")


def instant(files: Mapping[str, bytes | Image]) -> Folder:
    history = MemoryHistory(TEN + SECOND_NS)
    history.seal("vm1", TEN, files)
    folder = walk(TimeTree(history, Names.COLONS, TOY_DISKS).root, [b"vm1", b"latest"])
    assert isinstance(folder, Folder)
    return folder


def listed(folder: Node) -> list[str]:
    assert isinstance(folder, Folder)
    return sorted(entry.name.decode() for entry in folder.entries())


def text(folder: Folder, path: str) -> bytes:
    leaf = walk(folder, path.encode().split(b"/"))
    assert isinstance(leaf, Leaf)
    assert leaf.attributes().size == leaf.open().size
    return leaf.open().read(0, 100)


def test_a_disk_is_shown_as_its_volume_its_partitions_and_on_lookup_raw():
    folder = instant({"disk.vhdx": DISK})
    assert listed(folder) == ["disk", "disk.d", "disk.vhdx"]
    assert listed(folder.lookup(b"disk")) == ["a", "b", "deep"]
    assert listed(folder.lookup(b"disk.d")) == ["p1-DATA"]
    assert text(folder, "disk/a") == b"alpha"
    assert text(folder, "disk/deep/b") == b"beta"
    assert text(folder, "disk.d/p1-DATA/a") == b"alpha"
    assert text(folder, "disk.raw") == DISK[4:]
    assert text(folder, "disk.vhdx") == DISK


def test_the_full_name_always_leads_to_partitions_and_raw():
    folder = instant({"disk.vhdx": DISK})
    assert text(folder, "disk.vhdx.d/p1-DATA/a") == b"alpha"
    assert text(folder, "disk.vhdx.raw") == DISK[4:]


def test_what_is_no_disk_has_nothing_inside():
    folder = instant({"notes.txt": b"just text", "empty.vhdx": b"", "blank.vhdx": b"TOY:blank"})
    assert listed(folder) == ["blank.vhdx", "empty.vhdx", "notes.txt"]
    for name in (b"notes", b"notes.d", b"notes.raw", b"empty", b"empty.raw", b"blank", b"blank.d"):
        with pytest.raises(NotFoundError):
            folder.lookup(name)
    assert text(folder, "blank.raw") == b"blank"


def test_a_captured_name_wins_over_a_volume():
    folder = instant({"disk.vhdx": DISK, "disk": b"a file"})
    assert listed(folder) == ["disk", "disk.d", "disk.vhdx"]
    assert text(folder, "disk") == b"a file"
    assert text(folder, "disk.d/p1-DATA/a") == b"alpha"


def test_a_captured_name_wins_over_partitions_and_raw_which_then_bear_the_full_name():
    folder = instant({"disk.vhdx": DISK, "disk.d": b"file", "disk.raw": b"other"})
    assert listed(folder) == ["disk", "disk.d", "disk.raw", "disk.vhdx", "disk.vhdx.d"]
    assert text(folder, "disk.d") == b"file"
    assert text(folder, "disk.raw") == b"other"
    assert text(folder, "disk.vhdx.raw") == DISK[4:]
    assert text(folder, "disk.vhdx.d/p1-DATA/b") == b"beta"


def test_two_disks_of_one_stem_both_bear_their_full_names():
    folder = instant({"disk.vhdx": DISK, "disk.vhd": b"TOY:FS:a=other"})
    assert listed(folder) == ["disk.vhd", "disk.vhd.d", "disk.vhdx", "disk.vhdx.d"]
    for name in (b"disk", b"disk.d", b"disk.raw"):
        with pytest.raises(NotFoundError):
            folder.lookup(name)
    assert text(folder, "disk.vhd.d/p1-DATA/a") == b"other"
    assert text(folder, "disk.vhdx.raw") == DISK[4:]


def test_a_neighbour_of_the_same_stem_that_is_no_disk_does_not_matter():
    folder = instant({"vm1.vhdx": DISK, "vm1.xml": b"<machine/>"})
    assert listed(folder) == ["vm1", "vm1.d", "vm1.vhdx", "vm1.xml"]


def test_a_disk_without_suffix_keeps_its_name_and_shows_its_partitions():
    folder = instant({"sda": DISK[4:]})
    assert listed(folder) == ["sda", "sda.d"]
    assert text(folder, "sda") == text(folder, "sda.raw") == DISK[4:]
    assert folder.lookup(b"sda.raw").identity == folder.lookup(b"sda").identity


def test_a_hidden_file_has_no_stem():
    assert listed(instant({".disk": DISK})) == [".disk", ".disk.d"]


def test_a_disk_that_is_not_decoded_says_so_in_its_folders_and_is_no_raw_disk():
    folder = instant({"new.vhdx": b"NEW:"})
    assert listed(folder) == ["new", "new.d", "new.vhdx"]
    for name in ("new", "new.d"):
        assert text(folder, f"{name}/why") == b"toy disk: version 2 is not decoded"
    with pytest.raises(UnsupportedError):
        text(folder, "new.raw")


def test_a_damaged_disk_is_shown_and_says_why():
    folder = instant({"bad.vhdx": b"BAD:", "good.vhdx": DISK})
    assert listed(folder) == ["bad", "bad.d", "bad.vhdx", "good", "good.d", "good.vhdx"]
    shown = folder.lookup(b"bad")
    assert isinstance(shown, Folder)
    shown.attributes()
    for call in (
        lambda: listed(shown),
        lambda: shown.lookup(b"a"),
        lambda: text(folder, "bad.raw"),
    ):
        with pytest.raises(CorruptError):
            call()


def test_a_file_that_cannot_be_read_does_not_hide_the_instant_and_is_never_absent():
    folder = instant({"lost.vhdx": Unreadable(), "good.vhdx": DISK})
    assert listed(folder) == ["good", "good.d", "good.vhdx", "lost.vhdx"]
    for name in (b"lost", b"lost.d", b"lost.raw"):
        with pytest.raises(DamagedError):
            folder.lookup(name)


def test_every_listed_name_can_be_looked_up():
    folder = instant(
        {"a.vhdx": DISK, "a.vhd": DISK, "a.d": b"x", "b.vhdx": DISK, "b.d.img": DISK, "b": b"y"}
    )
    for name, node in folder.entries():
        assert folder.lookup(name).identity == node.identity


def test_listing_an_instant_opens_no_volume():
    before = toy_disks.asked["volume"]
    for _, node in instant({"disk.vhdx": DISK}).entries():
        node.attributes()
    assert toy_disks.asked["volume"] == before


def test_nodes_are_found_again_after_their_volume_was_closed():
    history = MemoryHistory(TEN + 3600 * SECOND_NS)
    for number in range(GUESTS_MAX + 10):
        disk = b"TOY:FS:a=alpha %d" % number
        history.seal("vm1", TEN + number * SECOND_NS, {"disk.vhdx": disk})
    root = TimeTree(history, Names.COLONS, TOY_DISKS).root
    before = toy_disks.asked["volume"]
    held: list[Node] = []
    for number in range(GUESTS_MAX + 10):
        name = b"2024-05-01T10:00:%02d" % number
        held.append(walk(root, [b"vm1", name, b"disk", b"deep", b"a"]))
    assert toy_disks.asked["volume"] == before + GUESTS_MAX + 10
    for number, node in enumerate(held):
        assert isinstance(node, Leaf)
        assert node.open().read(0, 100) == b"alpha %d" % number
    assert toy_disks.asked["volume"] > before + GUESTS_MAX + 10


def test_a_guest_of_an_unchanged_disk_is_the_same_at_two_instants():
    history = MemoryHistory(TEN + 3600 * SECOND_NS)
    history.seal("vm1", TEN, {"disk.vhdx": DISK})
    history.seal("vm1", TEN + 60 * SECOND_NS, {"other": b"changed"})
    root = TimeTree(history, Names.COLONS, TOY_DISKS).root
    first = walk(root, [b"vm1", b"2024-05-01T10:00", b"disk", b"a"])
    assert first.identity == walk(root, [b"vm1", b"latest", b"disk", b"a"]).identity
    assert first.identity == walk(root, [b"vm1", b"latest", b"disk.d", b"p1-DATA", b"a"]).identity


def test_no_link_leads_out_of_its_volume():
    folder = instant({"disk.vhdx": DISK})
    within = walk(folder, [b"disk", b"deep", b"in"])
    assert isinstance(within, Link)
    assert within.target() == b"../a"
    for name in (b"out", b"root"):
        link = walk(folder, [b"disk", b"deep", name])
        assert isinstance(link, Link)
        with pytest.raises(DeniedError):
            link.target()


def test_a_whole_tree_can_be_walked():
    paths = [path for path, _ in descend(instant({"disk.vhdx": DISK}))]
    assert b"disk/deep/a" in paths
    assert b"disk.d/p1-DATA" in paths  # the same folder as disk/, met again
    assert not any(path.startswith(b"disk.d/p1-DATA/") for path in paths)
    assert len(paths) == len(set(paths))


def test_a_disk_is_identified_by_what_it_stands_on_too():
    history = MemoryHistory(TEN + 3600 * SECOND_NS)
    history.seal("vm1", TEN, {"child": b"ON:base:b=child", "base": b"TOY:FS:a=one,"})
    history.seal("vm1", TEN + 60 * SECOND_NS, {"base": b"TOY:FS:a=two,"})
    history.seal("vm1", TEN + 120 * SECOND_NS, {"other": b"changed"})
    root = TimeTree(history, Names.COLONS, TOY_DISKS).root
    times = (b"2024-05-01T10:00", b"2024-05-01T10:01", b"2024-05-01T10:02")
    instants = [walk(root, [b"vm1", time]) for time in times]
    shown: list[Node] = []
    for folder, expected in zip(instants, (b"one", b"two", b"two"), strict=True):
        assert isinstance(folder, Folder)
        assert text(folder, "child.d/p1-DATA/a") == expected
        assert text(folder, "child.d/p1-DATA/b") == b"child"
        assert text(folder, "child.raw").startswith(b"FS:a=" + expected)
        shown.append(walk(folder, [b"child.d", b"p1-DATA", b"a"]))
    assert shown[0].identity != shown[1].identity == shown[2].identity


def test_a_missing_parent_is_an_error_until_it_is_captured():
    history = MemoryHistory(TEN + 3600 * SECOND_NS)
    history.seal("vm1", TEN, {"child": b"ON:BASE:b=child"})
    history.seal("vm1", TEN + 60 * SECOND_NS, {"base": b"TOY:FS:a=one,"})
    root = TimeTree(history, Names.COLONS, TOY_DISKS).root
    before, after = (walk(root, [b"vm1", name]) for name in (b"2024-05-01T10:00", b"latest"))
    assert isinstance(before, Folder)
    assert isinstance(after, Folder)
    with pytest.raises(CorruptError, match="expected BASE"):
        text(before, "child.d/p1-DATA/a")
    assert text(before, "child") == b"ON:BASE:b=child"
    assert text(after, "child.d/p1-DATA/a") == b"one"


def test_any_disk_can_be_had_as_vhdx_vhd_and_vmdk_under_names_that_are_not_listed():
    folder = instant({"disk.qcow2": DISK, "sda": DISK[4:], "notes.txt": b"text"})
    assert listed(folder) == ["disk", "disk.d", "disk.qcow2", "notes.txt", "sda", "sda.d"]
    for name in ("disk", "disk.qcow2", "sda"):
        whole = folder.lookup(name.encode() + b".vhdx")
        assert isinstance(whole, Leaf)
        content = whole.open().read(0, 1000)
        assert content.startswith(b"VHDX:")
        assert content.endswith(DISK[4:])
        assert text(folder, f"{name}.vhd").startswith(DISK[4:] + b":VHD")
        assert text(folder, f"{name}.vmdk").startswith(b"VMDK:")
    for name in (b"notes.vhdx", b"notes.txt.vhd", b"other.vhdx"):
        with pytest.raises(NotFoundError):
            folder.lookup(name)


def test_a_captured_vhdx_wins_over_one_made_on_read():
    folder = instant({"disk.vhdx": DISK})
    assert text(folder, "disk.vhdx") == DISK
    assert text(folder, "disk.vhdx.vhdx").startswith(b"VHDX:")


def test_what_was_captured_as_a_disk_is_listed_as_vhdx():
    history = MemoryHistory(TEN + SECOND_NS)
    history.seal("vm1", TEN, {"vda": DISK[4:], "blank": b"\0" * 512}, disks=["vda", "blank"])
    folder = walk(TimeTree(history, Names.COLONS, TOY_DISKS).root, [b"vm1", b"latest"])
    assert listed(folder) == ["blank", "blank.vhdx", "vda", "vda.d", "vda.vhdx"]


def test_groups_of_disks_have_a_folder_of_their_own():
    history = MemoryHistory(TEN + 3600 * SECOND_NS)
    history.seal("vm1", TEN, {"one": b"TOY:FS:group=vg0,a=alpha", "two": b"FS:group=vg1,a=beta"})
    history.seal("vm1", TEN + 60 * SECOND_NS, {"other": DISK})
    history.seal("vm1", TEN + 120 * SECOND_NS, {"two": b"FS:group=vg1,a=gamma", "bad": b"BAD:"})
    root = TimeTree(history, Names.COLONS, TOY_DISKS).root
    times = (b"2024-05-01T10:00", b"2024-05-01T10:01", b"2024-05-01T10:02")
    shown: list[Node] = []
    for time, expected in zip(times, (b"beta", b"beta", b"gamma"), strict=True):
        folder = walk(root, [b"vm1", time])
        assert isinstance(folder, Folder)
        assert "@volumes" in listed(folder)
        assert listed(folder.lookup(b"@volumes")) == ["vg0", "vg1"]
        assert text(folder, "@volumes/vg0/a") == b"alpha"
        assert text(folder, "@volumes/vg1/a") == expected
        shown.append(folder.lookup(b"@volumes"))
    assert shown[0].identity == shown[1].identity != shown[2].identity


def test_without_groups_there_is_no_folder_of_them_and_a_captured_name_wins():
    folder = instant({"disk.vhdx": DISK})
    with pytest.raises(NotFoundError):
        folder.lookup(b"@volumes")
    folder = instant({"one": b"FS:group=vg0", "@volumes": b"mine"})
    assert text(folder, "@volumes") == b"mine"
    assert listed(folder).count("@volumes") == 1
