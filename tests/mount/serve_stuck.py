"""A mount of requests that are stuck, as a process of its own: MOUNTPOINT.

`slow N` computes for seconds, `deaf` for ever and never looks at its budget; `costly` spends until
its budget is used up, `waiting` waits until somebody looks for `go`; `good` is like any other.
"""

import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from store.budget import spend
from store.image import Extent, ExtentKind, Image
from tests.timetree.memory_tree import MemoryFile, MemoryFolder
from timefs.mount.mounting import mounted
from timefs.tree import Entry, Node

SIZE = 1 << 20
STUCK = 8

went = threading.Event()


class Deaf(Image):
    """Computes whatever it is asked."""

    spends_bytes = 0

    @property
    def size(self) -> int:
        return SIZE

    def read_into(self, offset: int, buffer: memoryview) -> int:
        while True:
            if self.spends_bytes:
                spend(self.spends_bytes)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        self.read_into(offset, memoryview(b""))
        yield Extent(offset, length, ExtentKind.ZERO, None, 0)


class Slow(Deaf):
    spends_bytes = 20


class Waiting(Deaf):
    """Answers when it may."""

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        went.wait(60)
        yield Extent(offset, length, ExtentKind.ZERO, None, 0)


class Costly(MemoryFolder):
    def entries(self) -> Iterator[Entry]:
        while True:
            spend(SIZE)
            yield Entry(b"same", MemoryFile(b"same", b""))


class Top(MemoryFolder):
    def lookup(self, name: bytes) -> Node:
        if name == b"go":
            went.set()
        return super().lookup(name)


def main() -> None:
    logging.basicConfig(format="%(message)s")
    nodes: dict[bytes, Node] = {b"good": MemoryFile(b"good", b"of another machine")}
    nodes |= {b"slow %d" % n: MemoryFile(b"slow %d" % n, Slow()) for n in range(STUCK)}
    nodes |= {
        b"deaf": MemoryFile(b"deaf", Deaf()),
        b"waiting": MemoryFile(b"waiting", Waiting()),
        b"costly": Costly(b"costly", {}),
    }
    with mounted(Top(b"top", nodes), Path(sys.argv[1]), threads=2) as server:
        print("ready", flush=True)
        server.wait()


if __name__ == "__main__":
    main()
