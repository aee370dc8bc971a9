"""Claims: one capture of a machine at a time, on one host. Not a lock of the repository.

Defined here and only here. A claim only saves work: what really keeps two captures apart is that
neither can create a pack number that the other has taken. Safe between processes.
"""

import fcntl
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from store.backend import translate
from store.errors import BusyError


@contextmanager
def claim(root: Path, machine: str, *, wait: bool) -> Generator[None]:
    """Hold a machine's claim; it ends with the process, however that ends.

    Raises:
        BusyError: another process holds the claim, which the message names.
    """
    folder = root / "claims"
    path = folder / (machine.encode(errors="surrogateescape").hex() + ".claim")
    try:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise translate(error, str(path)) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            holder = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
            raise BusyError(
                f"{machine}: {holder or 'another process'} is capturing it; "
                f"wait for that with --wait, or try later"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)
