"""A mount of a small history in memory as a process of its own: MODE MOUNTPOINT REPOSITORY LOG."""

import logging
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from store.errors import DamagedError, TimefsError
from tests.timetree.memory_history import MemoryHistory
from timefs.mount.background import mount_background
from timefs.mount.mounting import mount_foreground
from timefs.times import SECOND_NS
from timefs.timetree import TimeTree
from timefs.tree import Folder

TEN = 1_714_557_600 * SECOND_NS  # 2024-05-01T10:00:00Z


@contextmanager
def small() -> Generator[Folder, None, None]:
    history = MemoryHistory(TEN + 3600 * SECOND_NS)
    history.seal("vm1", TEN, {"disk.bin": b"one"})
    yield TimeTree(history).root
    print("closed", flush=True)


@contextmanager
def large() -> Generator[Folder, None, None]:
    """A machine of a thousand instants, each with a file of 256 KiB."""
    history = MemoryHistory(TEN + 3600 * SECOND_NS)
    for number in range(1000):
        history.seal("vm1", TEN + number * SECOND_NS, {"disk.bin": b"%04d" % number * 65536})
    yield TimeTree(history).root


@contextmanager
def damaged() -> Generator[Folder, None, None]:
    if os.getcwd():  # noqa: PTH109 - the factory runs in the server, in the folder /
        raise DamagedError("pack 3: footer: expected checksum 1, got 2; run timefs check")
    yield TimeTree(MemoryHistory(TEN)).root


@contextmanager
def broken() -> Generator[Folder, None, None]:
    yield TimeTree(MemoryHistory(1 // 0)).root


def main() -> int:
    logging.basicConfig(format="%(message)s")
    mode, what, mountpoint, repository, log_path = sys.argv[1:]
    open_root = {"small": small, "large": large, "damaged": damaged, "broken": broken}[what]
    try:
        if mode != "background":
            return mount_foreground(
                open_root,
                Path(mountpoint),
                Path(repository),
                portable=mode == "portable",
                ready=lambda: print("ready", flush=True),
            )
        mount_background(open_root, Path(mountpoint), Path(repository), log_path=Path(log_path))
    except TimefsError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
