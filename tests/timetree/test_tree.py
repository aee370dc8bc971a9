import pytest

from store.errors import NotFolderError, NotFoundError
from tests.timetree.memory_history import MemoryHistory
from timefs.times import SECOND_NS, Names
from timefs.timetree import TimeTree
from timefs.tree import Folder, Leaf, Node, walk

TEN = 1_714_557_600 * SECOND_NS  # 2024-05-01T10:00:00Z
MINUTE = 60 * SECOND_NS


@pytest.fixture
def history() -> MemoryHistory:
    history = MemoryHistory(TEN + 60 * MINUTE)
    history.seal("vm1", TEN, {"disk.bin": b"one", "notes.txt": b"same"})
    history.seal("vm1", TEN + MINUTE, {"disk.bin": b"two"})
    history.seal("vm1", TEN + 2 * MINUTE + 500, {"disk.bin": b"three"})
    return history


def at(history: MemoryHistory, path: str, names: Names = Names.COLONS) -> Node:
    return walk(TimeTree(history, names).root, path.encode().split(b"/"))


def text(history: MemoryHistory, path: str) -> bytes:
    leaf = at(history, path)
    assert isinstance(leaf, Leaf)
    return leaf.open().read(0, 100)


def listed(folder: Node) -> list[str]:
    assert isinstance(folder, Folder)
    return [entry.name.decode() for entry in folder.entries()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("2024-05-01T10:00", b"one"),
        ("2024-05-01T10:00:59Z", b"one"),
        ("2024-05-01T10:01", b"two"),
        ("2024-05-01T10-01-30", b"two"),
        ("@GMT-2024.05.01-10.01.59", b"two"),
        ("@snaps/@GMT-2024.05.01-10.01.59", b"two"),
        ("2024-05-01T10:02:00", b"three"),
        ("2024-05-01T10:02:00.000000499Z", b"two"),
        ("2024-05-01T10:02:00.0000005", b"three"),
        ("2024-05-01T10:59:59", b"three"),
        ("latest", b"three"),
        ("-5m", b"three"),
        ("-59m", b"two"),
    ],
)
def test_a_time_shows_the_last_state_before_its_end(
    history: MemoryHistory, name: str, content: bytes
):
    assert text(history, f"vm1/{name}/disk.bin") == content


@pytest.mark.parametrize(
    "path",
    [
        "vm2",
        "vm1/2024-05-01T09:59:59",
        "vm1/2024-04-30",
        "vm1/2024-05-01T11:00:01",
        "vm1/2025-01-01",
        "vm1/nonsense",
        "vm1/-2h",
        "vm1/yesterday",
        "vm1/latest/none",
        "vm1/@snaps/latest",
        "vm1/@snaps/2024-05-01T10:00",
    ],
)
def test_what_is_not_there_is_not_found(history: MemoryHistory, path: str):
    with pytest.raises(NotFoundError):
        at(history, path)


def test_the_running_second_is_not_the_future(history: MemoryHistory):
    history.clock_ns = TEN + 3 * MINUTE + 1
    assert text(history, "vm1/2024-05-01T10:03:00/disk.bin") == b"three"
    with pytest.raises(NotFoundError):
        at(history, "vm1/2024-05-01T10:03:01")


def test_an_instant_ahead_of_a_clock_that_went_back_can_be_opened(history: MemoryHistory):
    history.clock_ns = TEN
    assert text(history, "vm1/2024-05-01T10:02:00Z/disk.bin") == b"three"


def test_a_file_is_not_a_folder(history: MemoryHistory):
    with pytest.raises(NotFolderError):
        at(history, "vm1/latest/notes.txt/x")


def test_a_machine_lists_its_instants_latest_and_snaps(history: MemoryHistory):
    assert listed(at(history, "vm1")) == [
        "latest",
        "@snaps",
        "2024-05-01T10:00:00Z",
        "2024-05-01T10:01:00Z",
        "2024-05-01T10:02:00Z",
    ]
    assert listed(at(history, "vm1", Names.WINDOWS))[2] == "2024-05-01T10-00-00Z"
    assert listed(at(history, "vm1/@snaps"))[0] == "@GMT-2024.05.01-10.00.00"


def test_an_instant_at_which_nothing_changed_is_no_version_but_opens(history: MemoryHistory):
    history.seal("vm1", TEN + 3 * MINUTE)
    history.clock_ns = TEN + 60 * MINUTE
    assert listed(at(history, "vm1"))[-1] == "2024-05-01T10:03:00Z"
    assert listed(at(history, "vm1/@snaps"))[-1] == "@GMT-2024.05.01-10.02.00"
    assert text(history, "vm1/@snaps/@GMT-2024.05.01-10.03.00/disk.bin") == b"three"


def test_every_listed_name_can_be_looked_up(history: MemoryHistory):
    for folder in (at(history, "vm1"), at(history, "vm1/@snaps"), TimeTree(history).root):
        assert isinstance(folder, Folder)
        for name, node in folder.entries():
            assert folder.lookup(name).identity == node.identity


def test_new_instants_appear(history: MemoryHistory):
    machine = at(history, "vm1")
    history.seal("vm1", TEN + 3 * MINUTE, {"disk.bin": b"four"})
    assert "2024-05-01T10:03:00Z" in listed(machine)
    assert text(history, "vm1/latest/disk.bin") == b"four"


def test_a_fuzzy_instant_is_marked_and_never_latest_while_a_consistent_one_exists(
    history: MemoryHistory,
):
    history.seal("vm1", TEN + 3 * MINUTE, {"disk.bin": b"torn"}, fuzzy=True)
    assert text(history, "vm1/latest/disk.bin") == b"three"
    assert at(history, "vm1/latest").xattrs() == {
        b"user.timefs.actual": b"2024-05-01T10:02:00.000000500Z"
    }
    assert at(history, "vm1/2024-05-01T10:03").xattrs() == {
        b"user.timefs.actual": b"2024-05-01T10:03:00.000000000Z",
        b"user.timefs.fuzzy": b"1",
    }


def test_identity_is_what_was_resolved_never_the_name(history: MemoryHistory):
    one = at(history, "vm1/2024-05-01T10:00:10")
    assert one.identity == at(history, "vm1/2024-05-01T10:00:20").identity
    assert one.identity != at(history, "vm1/2024-05-01T10:01").identity
    assert at(history, "vm1/latest").identity == at(history, "vm1/2024-05-01T10:02").identity


def test_a_file_that_did_not_change_is_the_same_node_at_two_instants(history: MemoryHistory):
    def identity(path: str) -> bytes:
        return at(history, path).identity

    assert identity("vm1/2024-05-01T10:00/notes.txt") == identity("vm1/latest/notes.txt")
    assert identity("vm1/2024-05-01T10:00/disk.bin") != identity("vm1/latest/disk.bin")


def test_equal_numbers_of_two_machines_are_different_nodes(history: MemoryHistory):
    other = MemoryHistory(history.clock_ns)
    other.seal("vm2", TEN, {"disk.bin": b"one", "notes.txt": b"same"})
    mine = at(history, "vm1/2024-05-01T10:00/disk.bin").identity
    assert at(other, "vm2/2024-05-01T10:00/disk.bin").identity != mine


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("2024-05-01T10:00:00Z", True),
        ("2024-05-01T10:01:59", True),
        ("2024-05-01T10:02:00.000000500", True),
        ("2024-05-01T10:02:00Z", False),
        ("2024-05-01T10:02:01", False),
        ("latest", False),
        ("-59m", False),
        ("nonsense", False),
    ],
)
def test_only_times_at_or_below_the_watermark_have_answers_to_keep(
    history: MemoryHistory, name: str, kept: bool
):
    machine = at(history, "vm1")
    assert isinstance(machine, Folder)
    assert machine.answer_frozen(name.encode()) is kept


def test_machines_and_their_listings_are_never_kept(history: MemoryHistory):
    assert not TimeTree(history).root.frozen
    assert not at(history, "vm1").frozen
    assert not at(history, "vm1/@snaps").frozen
    assert at(history, "vm1/2024-05-01T10:00").frozen


def test_an_instant_above_the_watermark_is_asked_again_each_time():
    class Late(MemoryHistory):
        def watermark_ns(self, machine: str) -> int:
            return TEN - 1

    history = Late(TEN + MINUTE)
    history.seal("vm1", TEN, {"a": b"1"})
    instant = at(history, "vm1/latest")
    assert not instant.frozen
    listed(instant)
    listed(instant)
    assert history.asked["files"] == 2


def test_a_frozen_instant_is_asked_for_its_files_once(history: MemoryHistory):
    root = TimeTree(history).root
    for _ in range(3):
        listed(walk(root, [b"vm1", b"2024-05-01T10:00"]))
    assert history.asked["files"] == 1


def test_names_that_are_not_utf8_come_back_as_the_bytes_they_were(history: MemoryHistory):
    history.seal("vm1", TEN + 3 * MINUTE, {"d\udcff.bin": b"odd"})
    instant = at(history, "vm1/latest")
    assert isinstance(instant, Folder)
    names = [entry.name for entry in instant.entries()]
    assert b"d\xff.bin" in names
    assert isinstance(instant.lookup(b"d\xff.bin"), Leaf)


def test_memory_is_bounded_by_the_caches_however_many_instants_are_opened(history: MemoryHistory):
    for minute in range(3, 303):
        history.seal("vm1", TEN + minute * MINUTE, {"disk.bin": b"%d" % minute})
    history.clock_ns = TEN + 400 * MINUTE
    tree = TimeTree(history)
    machine = tree.root.lookup(b"vm1")
    assert isinstance(machine, Folder)
    for _, instant in machine.entries():
        if isinstance(instant, Folder):
            for _, node in instant.entries():
                if isinstance(node, Leaf):
                    node.open()
    assert len(tree.views) <= 64
