"""Serving a mounted /dev/fuse: the protocol agreed on, and threads that answer requests.

Defined here and only here: `Server`. Used by timefs.mount.mounting. Each thread has its own clone
of the device and its own buffers. While every thread is at work more are started, so that nobody
waits behind requests that are stuck.
"""

import logging
import os
import threading
from typing import Final

from store.errors import DeniedError, UnsupportedError
from store.posix.devices import control
from timefs.mount.core import FileSystem
from timefs.mount.fuse.operations import Operations
from timefs.mount.fuse.protocol import (
    ARGUMENTS,
    IN_HEADER,
    INIT_IN,
    INIT_IN_OLD,
    INIT_OUT,
    IOC_CLONE,
    MAJOR,
    MINOR,
    OUT_HEADER,
    InitFlag,
    Opcode,
)
from timefs.mount.fuse.worker import READ_BYTES_MAX, REQUEST_BYTES, Shared, Worker

THREADS_MAX: Final = 64
"""How many requests can be stuck before others wait; each is given up in the end."""

_WRITE_BYTES_MAX: Final = 4096
_BACKGROUND_MAX: Final = 64
_CONGESTION: Final = 48
_FLAGS: Final = (
    InitFlag.ASYNC_READ
    | InitFlag.BIG_WRITES
    | InitFlag.DO_READDIRPLUS
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.MAX_PAGES
    | InitFlag.CACHE_SYMLINKS
    | InitFlag.INIT_EXT
)

log = logging.getLogger(__name__)


class Server:
    """Serves one mount until it is unmounted; owns `device` and its clones."""

    def __init__(self, device: int, filesystem: FileSystem, threads: int) -> None:
        self._device = device
        self._shared = Shared(Operations(filesystem))
        self._count = threads
        self._threads: list[threading.Thread] = []

    def negotiate(self) -> None:
        """Agree with the kernel on the protocol; one of another major version comes again.

        Raises:
            UnsupportedError: the kernel speaks another protocol.
        """
        request = bytearray(REQUEST_BYTES)
        while True:
            length = os.readv(self._device, [request])
            _, opcode, unique, *_ = IN_HEADER.unpack_from(request)
            if opcode != Opcode.INIT:
                raise UnsupportedError(f"/dev/fuse: expected INIT, got request {opcode}")
            major, minor, readahead, low = INIT_IN_OLD.unpack_from(request, ARGUMENTS)
            high = 0
            if length >= ARGUMENTS + INIT_IN.size and low & InitFlag.INIT_EXT:
                *_, high = INIT_IN.unpack_from(request, ARGUMENTS)
            if major < MAJOR:
                raise UnsupportedError(f"/dev/fuse: expected protocol {MAJOR}, got {major}")
            flags = _FLAGS & (low | high << 32)
            answer = INIT_OUT.pack(
                *(MAJOR, min(minor, MINOR), max(readahead, READ_BYTES_MAX), flags & 0xFFFFFFFF),
                *(_BACKGROUND_MAX, _CONGESTION, _WRITE_BYTES_MAX, 1),
                *(READ_BYTES_MAX >> 12, 0, flags >> 32, 0),
            )
            header = OUT_HEADER.pack(OUT_HEADER.size + len(answer), 0, unique)
            os.write(self._device, header + answer)
            if major == MAJOR:
                self._shared.pruning.minor = min(minor, MINOR)
                return

    def start(self) -> None:
        """Begin to serve; answers when requests are.

        Raises:
            DeniedError: the device cannot be opened once more.
        """
        for device in [self._device, *(self._clone() for _ in range(self._count - 1))]:
            self._start_worker(device)
        watch = self._shared.watch
        threading.Thread(
            target=watch.run, args=(self._grow,), name="fuse-watch", daemon=True
        ).start()

    def _start_worker(self, device: int) -> None:
        name = f"fuse-{len(self._threads)}"
        thread = threading.Thread(target=self._work, args=(device,), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self, device: int) -> None:
        try:
            Worker(device, self._shared).run()
        finally:
            self._shared.watch.end()

    def _grow(self) -> None:
        """All threads are at work: start half as many again."""
        try:
            for _ in range(min(len(self._threads) // 2, THREADS_MAX - len(self._threads))):
                self._start_worker(self._clone())
        except (OSError, DeniedError, RuntimeError) as error:
            log.warning("/dev/fuse: no more threads for requests: %s", error)

    @property
    def serving(self) -> bool:
        """Whether the mount still is there."""
        return not self._threads or any(thread.is_alive() for thread in self._threads)

    def wait(self, seconds: float | None = None) -> None:
        """Return when the mount is gone, or when each thread had that many seconds to end."""
        for thread in self._threads:
            thread.join(seconds)

    def _clone(self) -> int:
        """A further descriptor of the same mount; the kernel allows it after INIT only."""
        try:
            clone = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise DeniedError(f"/dev/fuse: {error.strerror}") from error
        control(clone, IOC_CLONE, self._device.to_bytes(4, "little"))
        return clone
