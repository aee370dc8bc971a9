"""Claims: one capture of a machine at a time, on one host. Not a lock of the repository.

Defined here and only here. A claim only saves work: what really keeps two captures apart is that
neither can create a pack number that the other has taken. The catalog's writer has a claim too.
Safe between processes; a claim ends with its process, however that ends.
"""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from blake3 import blake3

from store.errors import BusyError
from store.objects.backend import translate
from store.posix.locks import lock_file

HEX_NAME_BYTES_MAX: Final = 124
"""Of a machine: twice as many and the suffix are what Linux takes as a name."""


def claim_path(root: Path, machine: str) -> Path:
    """Where a machine's claim lies: under its name in hex, or what stands for one too long."""
    name = machine.encode(errors="surrogateescape")
    stem = name.hex() if len(name) <= HEX_NAME_BYTES_MAX else blake3(name).hexdigest()
    return root / "claims" / f"{stem}.claim"


@contextmanager
def claim(root: Path, machine: str, *, wait: bool) -> Generator[None]:
    """Hold a machine's claim.

    Raises:
        BusyError: another process holds the claim, which the message names.
    """
    with _hold(
        claim_path(root, machine),
        f"{machine}: {{}} is capturing it; wait for that with --wait, or try later",
        wait=wait,
    ):
        yield


@contextmanager
def claim_catalog(root: Path, *, wait: bool) -> Generator[None]:
    """Be the catalog's only writer on this host.

    Raises:
        BusyError: another process holds the claim, which the message names.
    """
    with _hold(root / "claims" / "catalog", "catalog: {} is writing it", wait=wait):
        yield


@contextmanager
def _hold(path: Path, busy: str, *, wait: bool) -> Generator[None]:
    try:
        path.parent.mkdir(exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise translate(error, str(path)) from error
    try:
        if not lock_file(descriptor, wait=wait):
            holder = os.pread(descriptor, 4096, 0).decode(errors="replace").strip()
            raise BusyError(busy.format(holder or "another process"))
        with suppress(OSError):  # a full disk: the name is only for those who wait
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)
