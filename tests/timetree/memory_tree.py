"""A tree in memory, with damage and faults where a test wants them."""

import stat
from collections.abc import Iterable, Iterator, Mapping

from store.errors import NotFoundError
from store.image import BytesImage, Extent, ExtentKind, Image
from timefs.tree import Attributes, Entry, Folder, Leaf, Link, Node

TIME_NS = 1_714_557_637_123_456_789


def attributes(mode: int, size: int, allocated_bytes: int | None = None) -> Attributes:
    allocated = size if allocated_bytes is None else allocated_bytes
    return Attributes(mode, size, allocated, 1, TIME_NS, TIME_NS + 1, TIME_NS + 2, TIME_NS)


class MemoryNode(Node):
    def __init__(self, name: bytes, xattrs: Mapping[bytes, bytes] | None = None) -> None:
        self._identity = name
        self._xattrs = xattrs or {}

    @property
    def identity(self) -> bytes:
        return self._identity

    def xattrs(self) -> Mapping[bytes, bytes]:
        return self._xattrs


class MemoryFile(MemoryNode, Leaf):
    def __init__(self, name: bytes, image: Image | bytes, **more: Mapping[bytes, bytes]) -> None:
        super().__init__(name, **more)
        self.image = BytesImage(image) if isinstance(image, bytes) else image

    def attributes(self) -> Attributes:
        return attributes(stat.S_IFREG | 0o444, self.image.size)

    def open(self) -> Image:
        return self.image


class MemoryLink(MemoryNode, Link):
    def __init__(self, name: bytes, target: bytes) -> None:
        super().__init__(name)
        self._target = target

    def attributes(self) -> Attributes:
        return attributes(stat.S_IFLNK | 0o777, len(self._target))

    def target(self) -> bytes:
        return self._target


class MemoryFolder(MemoryNode, Folder):
    """A folder that a test may change while it is mounted when it is not frozen."""

    def __init__(self, name: bytes, nodes: Mapping[bytes, Node], *, frozen: bool = True) -> None:
        super().__init__(name)
        self.nodes = dict(nodes)
        self._frozen = frozen

    @property
    def frozen(self) -> bool:
        return self._frozen

    def attributes(self) -> Attributes:
        return attributes(stat.S_IFDIR | 0o555, 0)

    def lookup(self, name: bytes) -> Node:
        if name not in self.nodes:
            raise NotFoundError(f"{name!a}: no such name")
        return self.nodes[name]

    def entries(self) -> Iterable[Entry]:
        return [Entry(name, node) for name, node in self.nodes.items()]


class FailingNode(MemoryFile):
    """A file of which nothing can be had."""

    def __init__(self, name: bytes, error: Exception) -> None:
        super().__init__(name, b"")
        self._error = error

    def attributes(self) -> Attributes:
        raise self._error


class FailingFolder(MemoryFolder):
    """A folder whose listing and lookups fail after `good` names."""

    def __init__(self, name: bytes, nodes: Mapping[bytes, Node], error: Exception) -> None:
        super().__init__(name, nodes)
        self._error = error

    def lookup(self, name: bytes) -> Node:
        if name in self.nodes:
            return self.nodes[name]
        raise self._error

    def entries(self) -> Iterator[Entry]:
        yield from super().entries()
        raise self._error


class FailingImage(Image):
    """Bytes that cannot be had from `first_bad` on."""

    def __init__(self, size: int, first_bad: int, error: Exception) -> None:
        self._size = size
        self._first_bad = first_bad
        self._error = error

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, buffer: memoryview) -> int:
        count = max(0, min(len(buffer), self._size - offset))
        if offset + count > self._first_bad:
            raise self._error
        buffer[:count] = b"g" * count
        return count

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        yield Extent(offset, length, ExtentKind.OPAQUE, self, offset)


class SparseImage(Image):
    """Zeros but for some runs, `{offset: bytes}`."""

    def __init__(self, size: int, runs: Mapping[int, bytes]) -> None:
        self._size = size
        self._runs = dict(sorted(runs.items()))

    @property
    def size(self) -> int:
        return self._size

    def read_into(self, offset: int, buffer: memoryview) -> int:
        count = max(0, min(len(buffer), self._size - offset))
        buffer[:count] = bytes(count)
        for start, run in self._runs.items():
            first, last = max(start, offset), min(start + len(run), offset + count)
            if first < last:
                buffer[first - offset : last - offset] = run[first - start : last - start]
        return count

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        end = min(offset + length, self._size)
        at = offset
        for start, run in self._runs.items():
            first, last = max(start, at), min(start + len(run), end)
            if first >= last:
                continue
            if at < first:
                yield Extent(at, first - at, ExtentKind.ZERO, None, 0)
            yield Extent(first, last - first, ExtentKind.DATA, self, first)
            at = last
        if at < end:
            yield Extent(at, end - at, ExtentKind.ZERO, None, 0)
