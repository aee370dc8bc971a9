"""The share of a small history in memory as a process: STATE PORT RIGHTS [ADMINISTRATOR].

Three instants, a minute apart; the volume holds what Windows would not take and what must not lead
out of it. Further instants appear while it runs, on SIGUSR1.
"""

import random
import signal
import struct
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from stat import S_IFBLK, S_IFREG

from store.image import BytesImage, Image
from tests.timetree.memory_history import MemoryHistory
from tests.timetree.memory_tree import MemoryFile, MemoryFolder, MemoryLink, SparseImage
from timefs.guest.siblings import Find
from timefs.share.service import serve
from timefs.share.settings import Settings
from timefs.share.view import Rights
from timefs.times import SECOND_NS, Names
from timefs.timetree import TimeTree
from timefs.timetree.disks import GUEST_DISKS
from timefs.tree import Attributes, Folder, Node

TEN = 1_714_557_600 * SECOND_NS  # 2024-05-01T10:00:00Z
ODD_NAMES = (
    b"a:b", b'quote"', b"question?", b"trailing dot.", b"trailing space ", b"CON", b"nul.txt",
    b"Makefile", b"makefile", b"MAKEFILE", b"back\\slash", b"tab\t", b"latin-\xe9", "ü".encode(),
)  # fmt: skip
INSTANTS = 3
REPORT_BYTES = 1 << 20
HUGE_BYTES = 5 << 30
HUGE_RUNS = {0: b"first", (4 << 30) + 7: b"beyond four"}

EVERYONE = b"\x01\x01\0\0\0\0\0\x01\0\0\0\0"
SOMEBODY_ELSE = struct.pack("<BB6s5I", 1, 5, b"\0\0\0\0\0\x05", 21, 1, 2, 3, 1000)


def descriptor(reader: bytes) -> bytes:
    """A self-relative security descriptor: one user owns it and one may read."""
    entry = struct.pack("<BBHI", 0, 0, 8 + len(reader), 0x1200A9) + reader
    access = struct.pack("<BBHHH", 2, 0, 8 + len(entry), 1, 0) + entry
    header = struct.pack("<BBHIIII", 1, 0, 0x8004, 20, 20 + len(SOMEBODY_ELSE), 0,
                         20 + 2 * len(SOMEBODY_ELSE))  # fmt: skip
    return header + SOMEBODY_ELSE * 2 + access


class NtfsFile(MemoryFile):
    """A file with what NTFS says of it."""

    def __init__(self, name: bytes, content: bytes, reader: bytes = EVERYONE) -> None:
        flags = (0x22).to_bytes(4, "little")  # hidden, archive
        xattrs = {b"system.ntfs_attrib": flags, b"system.ntfs_acl": descriptor(reader),
                  b"user.Zone.Identifier": b"[ZoneTransfer]\r\nZoneId=3\r\n"}  # fmt: skip
        super().__init__(name, content, xattrs=xattrs)

    def attributes(self) -> Attributes:
        return super().attributes()._replace(windows_flags=0x22)  # hidden, archive


@cache
def report(number: int) -> bytes:
    """A large report of one instant."""
    return random.Random(number).randbytes(REPORT_BYTES)


class Device(MemoryFile):
    """A block device of a Linux guest: the first disk of whoever would open it."""

    def attributes(self) -> Attributes:
        return super().attributes()._replace(mode=S_IFBLK | 0o666, device=0x800)


class LinuxFile(MemoryFile):
    """A file of a Linux guest, whose user 1 is not this server's user 1."""

    def __init__(self, name: bytes, mode: int) -> None:
        super().__init__(name, b"of a linux guest")
        self._mode = mode

    def attributes(self) -> Attributes:
        return super().attributes()._replace(mode=S_IFREG | self._mode, owner=1, group=1)


def volume(disk: Image, identity: bytes, time_ns: int) -> Folder:
    del time_ns
    said = disk.read(3, disk.size)
    odd: dict[bytes, Node] = {name: MemoryFile(identity + name, name) for name in ODD_NAMES}
    inside: dict[bytes, Node] = {
        b"up": MemoryLink(identity + b"up", b"../docs/report.txt"),
        b"out": MemoryLink(identity + b"out", b"../../../../../../etc/passwd"),
        b"root": MemoryLink(identity + b"root", b"/etc/passwd"),
        b"other": MemoryLink(identity + b"other", b"../../../2024-05-01T10-00-00Z/disk.img"),
    }
    large = report(int(said.split()[-1]))
    docs: dict[bytes, Node] = {
        b"large.bin": MemoryFile(identity + b"large", large),
        b"report.txt": NtfsFile(identity + b"report", said),
        b"secret.txt": NtfsFile(identity + b"secret", b"for one alone", SOMEBODY_ELSE),
    }
    inside[b"device"] = Device(identity + b"device", b"")
    linux: dict[bytes, Node] = {
        b"%o" % mode: LinuxFile(identity + b"%o" % mode, mode) for mode in (0o600, 0o640, 0o644)
    }
    huge = SparseImage(HUGE_BYTES, HUGE_RUNS)
    return MemoryFolder(
        identity + b"/",
        {
            b"docs": MemoryFolder(identity + b"/docs", docs),
            b"odd": MemoryFolder(identity + b"/odd", odd),
            b"links": MemoryFolder(identity + b"/links", inside),
            b"linux": MemoryFolder(identity + b"/linux", linux),
            b"huge": MemoryFile(identity + b"/huge", huge),
        },
    )


def decode(image: Image, find: Find) -> Image:
    del find
    return image


def references(image: Image) -> Sequence[str]:
    del image
    return ()


def has_volumes(file: Image, find: Find) -> bool:
    del find
    return file.read(0, 3) == b"FS:"


DISKS = GUEST_DISKS._replace(
    decode=decode,
    references=references,
    has_volumes=has_volumes,
    volume_folder=volume,
    partitions_folder=volume,
)


def seal(history: MemoryHistory, number: int) -> None:
    content = BytesImage(b"FS:report of instant %d" % number)
    history.seal("vm1", TEN + 60 * number * SECOND_NS, {"disk.img": content})


def main() -> int:
    state, port, rights, *administrators = sys.argv[1:]
    history = MemoryHistory(TEN + 3600 * SECOND_NS)
    for number in range(INSTANTS):
        seal(history, number)

    def grow(_number: int, _frame: object) -> None:
        seal(history, len(history.instants("vm1")))
        history.seal("vm2", TEN, {"notes.txt": b"a new machine"})

    signal.signal(signal.SIGUSR1, grow)

    @contextmanager
    def open_tree() -> Generator[TimeTree]:
        yield TimeTree(history, Names.WINDOWS, DISKS)

    folder = Path(state)
    repository = folder.parent / "repository"
    repository.mkdir(exist_ok=True)
    settings = Settings(
        ("127.0.0.1",), int(port), Rights(rights), (), administrators, folder, folder / "mount"
    )
    return serve(settings, open_tree, repository, ready=lambda: print("ready", flush=True))


if __name__ == "__main__":
    sys.exit(main())
