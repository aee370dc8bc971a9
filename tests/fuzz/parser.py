"""What the fuzz tests of file systems share: damage where a parser looks, then reading it all."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage, Image
from tests.fuzz.bounds import bounded_case, bounded_memory
from timefs.tree import Attributes, Folder, Leaf, Link, Node

NODES_MAX = 1000
READ_BYTES = 64 << 10
SPAN_BYTES_MAX = 4096
HIDDEN_BYTES_MAX = 1 << 20  # a security descriptor
VALUES = (0, 1, 2, 5, 7, 8, 16, 24, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF,
          (1 << 48) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip

Opener = Callable[[Image], Folder]


class Watched(BytesImage):
    """A volume that remembers where its parser looked."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.looked: set[tuple[int, int]] = set()

    def read_into(self, offset: int, buffer: memoryview) -> int:
        if len(buffer) <= SPAN_BYTES_MAX:
            self.looked.add((offset, len(buffer)))
        return super().read_into(offset, buffer)


class Vandal:
    """Damages a volume where its structures are; the same seed does the same damage."""

    def __init__(self, content: bytes, opener: Opener) -> None:
        self.content = content
        watched = Watched(content)
        self.nodes = read_everything(watched, opener, contents=False)
        self._spans = sorted(watched.looked)

    def damaged(self, seed: int) -> bytes:
        chance = random.Random(seed)
        content = bytearray(self.content)
        for _ in range(chance.choice((1, 1, 2, 5))):
            mutate(content, *chance.choice(self._spans), chance)
        return bytes(content)


def mutate(data: bytearray, place: int, length: int, chance: random.Random) -> None:
    length = min(length, len(data) - place)
    at = place + chance.randrange(length)
    match chance.randrange(6):
        case 0:
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            data[at] = chance.randrange(256)
        case 2 | 3:
            width = chance.choice((2, 4, 8))
            at = place + (at - place) // width * width
            value = chance.choice(VALUES) & ((1 << 8 * width) - 1)
            order = "little" if chance.random() < 0.7 else "big"
            changed = value.to_bytes(width, order)
            data[at : at + width] = changed[: len(data) - at]
        case 4:
            count = min(chance.randrange(1, 64), place + length - at)
            data[at : at + count] = chance.choice((bytes(count), chance.randbytes(count)))
        case _:
            count = min(8 * chance.randrange(1, 16), length)
            source = place + chance.randrange(length - count + 1)
            target = place + chance.randrange(length - count + 1)
            data[target : target + count] = data[source : source + count]


def read_everything(
    volume: Image, opener: Opener, hidden: Sequence[bytes] = (), *, contents: bool = True
) -> int:
    """Walk the volume and read all that is there; answers how many nodes were seen.

    `hidden` are xattrs that are answered though they are not listed.
    """
    try:
        root = opener(volume)
    except (CorruptError, UnsupportedError):
        return 0
    nodes: list[Node] = [root]
    seen = 0
    while nodes and seen < NODES_MAX:
        node = nodes.pop()
        seen += 1
        with suppress(CorruptError, UnsupportedError):
            check_numbers(node.attributes())
        with suppress(CorruptError, UnsupportedError):
            xattrs = node.xattrs()
            for name in xattrs:
                with suppress(CorruptError, UnsupportedError):
                    assert len(xattrs[name]) <= READ_BYTES
            for name in hidden:
                with suppress(CorruptError, UnsupportedError):
                    assert len(xattrs.get(name) or b"") <= HIDDEN_BYTES_MAX
        with suppress(CorruptError, UnsupportedError):
            if isinstance(node, Folder):
                read_folder(node, nodes)
            elif isinstance(node, Link):
                assert not node.target().startswith(b"/")
            elif isinstance(node, Leaf) and contents:
                read_leaf(node)
    return seen


def check_numbers(attributes: Attributes) -> None:
    """What a parser answers fits whatever shows it."""
    try:
        attributes.checked("a node")
    except CorruptError as error:
        raise AssertionError(f"{attributes} cannot be shown") from error


def read_folder(folder: Folder, nodes: list[Node]) -> None:
    for name, node, attributes in chain.from_iterable(folder.entries_with_attributes()):
        assert not {0, 47} & {*name}
        if attributes is not None:
            assert attributes == node.attributes()
        nodes.append(node)
        with suppress(CorruptError, UnsupportedError):
            folder.lookup(name)  # NotFoundError would be a lie
        if len(nodes) > NODES_MAX:
            return


def read_leaf(leaf: Leaf) -> None:
    image = leaf.open()
    for offset in (0, image.size // 2, max(0, image.size - READ_BYTES)):
        part = image.read(offset, READ_BYTES)
        assert len(part) == min(READ_BYTES, image.size - offset)
        at = offset
        for extent in image.extents(offset, READ_BYTES):
            assert extent.offset == at
            at += extent.length
        assert at == offset + len(part)


def survive(content: bytes, opener: Opener, cases: Iterator[int] | range, folder: Path) -> None:
    """Damage after damage gives declared errors only, in bounded time and memory."""
    vandal = Vandal(content, opener)
    assert vandal.nodes > 30
    seen = 0
    with bounded_memory():
        for case in cases:
            damaged = vandal.damaged(case)
            with bounded_case(case, damaged, folder):
                seen += read_everything(BytesImage(damaged), opener)
    assert seen > len(list(cases)) * vandal.nodes // 4  # not so coarse that nothing opens
