"""A node that stands before another answers every question with the other's answer.

What a wrapper forgets to hand on is lost at its door alone: speed, rights, or a cycle that is
noticed. So each is asked everything that the contract of nodes knows, whatever that grows to.
"""

import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from stat import S_IFREG
from typing import Any, NamedTuple

import pytest

import timefs
from store.image import BytesImage, Image
from timefs.cli.restore import CapturedFiles
from timefs.share.view import Rights, ViewFile, ViewFolder, ViewLink, ViewWhole, view
from timefs.timetree.failures import KnownFailures
from timefs.timetree.guest import GuestFile, GuestFolder, GuestLink, Place
from timefs.timetree.opened import Guest
from timefs.timetree.tree import InstantFolder
from timefs.tree import Attributes, Entry, Folder, Leaf, Link, Listed, Node

NAME, IDENTITY = b"name", b"identity"
ARGUMENTS = {"name": NAME, "identity": IDENTITY}


class Asked(Node):
    """A node that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def _ask(self, what: str) -> None:
        self.asked.add(what)

    @property
    def identity(self) -> bytes:
        self._ask("identity")
        return IDENTITY

    @property
    def frozen(self) -> bool:
        self._ask("frozen")
        return False

    def attributes(self) -> Attributes:
        self._ask("attributes")
        return Attributes(S_IFREG | 0o444, 1, 1, 1, 0, 0, 0, 0)

    def xattrs(self) -> Mapping[bytes, bytes]:
        self._ask("xattrs")
        return {}


class AskedLeaf(Asked, Leaf):
    def open(self) -> Image:
        self._ask("open")
        return BytesImage(b"x")


class AskedLink(Asked, Link):
    def target(self) -> bytes:
        self._ask("target")
        return b"x"


class AskedFolder(Asked, Folder):
    def __init__(self, child: Node) -> None:
        super().__init__()
        self.child = child

    def lookup(self, name: bytes) -> Node:
        self._ask("lookup")
        return self.child

    def entries(self) -> Iterator[Entry]:
        self._ask("entries")
        yield Entry(NAME, self.child)

    def entries_with_attributes(self) -> Iterator[Sequence[Listed]]:
        self._ask("entries_with_attributes")
        yield [(NAME, self.child, None)]

    def leaf_again(self, identity: bytes) -> Node | None:
        self._ask("leaf_again")
        return self.child

    def shown_identity(self) -> bytes:
        self._ask("shown_identity")
        return IDENTITY

    def answer_frozen(self, name: bytes) -> bool:
        self._ask("answer_frozen")
        return False


class AskedInstant(AskedFolder, InstantFolder):
    """What holds whole disks."""


class Wrapper(NamedTuple):
    """A kind of wrapper, how one is had, and which questions it answers by itself, and why."""

    kind: type[Node]
    wraps: Callable[[AskedFolder], Node]
    answers_itself: Mapping[str, str] = {}


def folder_of_view(inner: AskedFolder) -> Node:
    return view(inner, Rights.SHARE)


def file_of_view(inner: AskedFolder) -> Node:
    return view(inner, Rights.GUEST).lookup(NAME)


def whole_of_view(inner: AskedFolder) -> Node:
    return view(AskedInstant(inner.child), Rights.GUEST).lookup(NAME)


def disk(inner: AskedFolder) -> GuestFolder:
    place = Place(lambda: Guest(inner), 0, KnownFailures())
    top = AskedFolder(inner)
    return GuestFolder(place._replace(guest=lambda: Guest(top)), None, b"", b"disk")


def folder_of_disk(inner: AskedFolder) -> Node:
    return disk(inner).lookup(NAME)


def node_of_disk(inner: AskedFolder) -> Node:
    folder = disk(inner).lookup(NAME)
    assert isinstance(folder, Folder)
    return folder.lookup(NAME)


KNOWN = {
    "identity": "it is what a node found again is compared with",
    "frozen": "nothing inside a disk ever changes",
}
WRAPPERS = [
    Wrapper(ViewFolder, folder_of_view, {"entries": "of parts"}),
    Wrapper(ViewFile, file_of_view),
    Wrapper(ViewLink, file_of_view),
    Wrapper(ViewWhole, whole_of_view),
    Wrapper(
        GuestFolder,
        folder_of_disk,
        KNOWN
        | {
            "answer_frozen": "as frozen",
            "leaf_again": "a file asks the folder that its own stands for",
        },
    ),
    Wrapper(GuestFile, node_of_disk, KNOWN),
    Wrapper(GuestLink, node_of_disk, KNOWN),
    Wrapper(CapturedFiles, CapturedFiles),
]
ORIGINALS = {
    "timefs.timetree.tree": {"RootFolder", "MachineFolder", "SnapsFolder", "InstantFolder",
                             "LiveFolder"},
    "timefs.timetree.instant": {"CapturedFile", "ShownDisk"},
}  # fmt: skip
"""Nodes that stand for no other; what LiveFolder stands for changes, and so do its answers."""

BASES = {"ViewNode", "GuestNode"}


def questions(contract: type[Node]) -> list[str]:
    """Everything that the contract of a kind of node knows."""
    found = {**vars(Node), **vars(contract)}
    return sorted(name for name in found if not name.startswith("_"))


def ask(node: Node, question: str) -> None:
    """Ask, with something for each argument, and take the whole of the answer."""
    member: Any = getattr(node, question)
    if not callable(member):
        return
    answer = member(**{name: ARGUMENTS[name] for name in inspect.signature(member).parameters})
    if isinstance(answer, Iterator):
        list(answer)  # pyright: ignore[reportUnknownArgumentType] - whatever there is
    elif isinstance(answer, Mapping):
        answer.get(b"user.timefs.none")  # pyright: ignore[reportUnknownMemberType]


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda each: each.kind.__name__)
def test_every_question_reaches_what_stands_behind(wrapper: Wrapper):
    contract = next(kind for kind in (Folder, Leaf, Link) if issubclass(wrapper.kind, kind))
    for question in questions(contract):
        child = AskedLink() if contract is Link else AskedLeaf()
        inner = AskedFolder(child)
        node = wrapper.wraps(inner)
        assert type(node) is wrapper.kind
        asked = inner.asked if contract is Folder else child.asked
        asked.clear()
        ask(node, question)
        assert (question in asked) != (question in wrapper.answers_itself), question


def test_no_kind_of_node_is_forgotten():
    """Parsers make nodes of their own, and have suites of their own."""
    kinds: set[tuple[str, str]] = set()
    for found in pkgutil.walk_packages(timefs.__path__, "timefs."):
        if not found.name.startswith("timefs.guest"):
            module = import_module(found.name)
            for name, kind in vars(module).items():
                if (
                    inspect.isclass(kind)
                    and issubclass(kind, Node)
                    and kind.__module__ == found.name
                ):
                    kinds.add((found.name, name))
    known = {(wrapper.kind.__module__, wrapper.kind.__name__) for wrapper in WRAPPERS}
    known |= {(module, name) for module, names in ORIGINALS.items() for name in names}
    known |= {("timefs.tree", kind.__name__) for kind in (Node, Folder, Leaf, Link)}
    assert {each for each in kinds if each[1] not in BASES} == known
