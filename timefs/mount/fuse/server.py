"""Serving a mounted /dev/fuse: requests in, answers out, by several threads.

Defined here and only here: `Server`. Used by timefs.mount.mounting. Each thread has its own clone
of the device and its own buffers; a READ is answered from the buffer that the image filled, with
one write and no copy of ours.

Whoever has the turn waits for requests. While requests that are short by nature are quick (READs
decoded from memory, attributes of a node at hand) it keeps the turn, so that one thread serves and
the others sleep: two that contend for the interpreter's lock take twice the processor's time and
are hardly faster. Once one of such a kind had to wait for a disk, and for every other request, the
turn is passed on before the work begins.
"""

import errno
import fcntl
import logging
import os
import select
import threading
from time import perf_counter
from typing import Final

from store.errors import DeniedError, UnsupportedError
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

READ_BYTES_MAX: Final = 1 << 20
"""Largest READ that the kernel may send; fs.fuse.max_pages_limit of 256 pages."""

QUICK_SECONDS: Final = 0.002
"""A request that took longer has waited for something, and others should not wait for it."""

WATCH_SECONDS: Final = 0.00005
"""How long a server stays awake for the next READ: about what being woken costs."""

_READ: Final = int(Opcode.READ)
_SHORT: Final = frozenset(
    {
        *(Opcode.READ, Opcode.GETATTR, Opcode.GETXATTR),
        *(Opcode.RELEASE, Opcode.RELEASEDIR, Opcode.FORGET, Opcode.BATCH_FORGET),
    }
)
"""Kinds of requests that keep the turn as long as they are quick; others may open a volume."""
_REQUEST_BYTES: Final = 1 << 16
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
_GONE: Final = frozenset({errno.ENODEV, errno.ECONNABORTED})
_AGAIN: Final = frozenset({errno.EINTR, errno.EAGAIN, errno.ENOENT})

log = logging.getLogger(__name__)


class _Arrivals:
    """Requests as they come: asleep until there is one, or watching where one is expected."""

    def __init__(self, device: int, request: memoryview) -> None:
        os.set_blocking(device, False)
        self._device = device
        self._buffers = [request]
        self._poll = select.poll()
        self._poll.register(device, select.POLLIN)

    def following(self, *, expected: bool) -> int:
        """Put the next request into the buffer; answers its length."""
        end = perf_counter() + WATCH_SECONDS if expected else 0.0
        while True:
            try:
                return os.readv(self._device, self._buffers)
            except BlockingIOError:
                if perf_counter() >= end:
                    self._poll.poll()


class Server:
    """Serves one mount until it is unmounted; owns `device` and its clones."""

    def __init__(self, device: int, filesystem: FileSystem, threads: int) -> None:
        self._device = device
        self._operations = Operations(filesystem)
        self._count = threads
        self._turn = threading.Lock()
        self._quick: set[int] = set(_SHORT)
        self._threads: list[threading.Thread] = []

    def negotiate(self) -> None:
        """Agree with the kernel on the protocol; one of another major version comes again.

        Raises:
            UnsupportedError: the kernel speaks another protocol.
        """
        request = bytearray(_REQUEST_BYTES)
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
                return

    def start(self) -> None:
        """Begin to serve; answers when requests are.

        Raises:
            DeniedError: the device cannot be opened once more.
        """
        devices = [self._device, *(self._clone() for _ in range(self._count - 1))]
        for number, device in enumerate(devices):
            thread = threading.Thread(
                target=self._serve, args=(device,), name=f"fuse-{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

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
        fcntl.ioctl(clone, IOC_CLONE, self._device.to_bytes(4, "little"))
        return clone

    def _serve(self, device: int) -> None:
        """One thread's life: until the mount is gone, whatever a request does."""
        try:
            self._answer_requests(device)
        finally:
            os.close(device)

    def _answer_requests(self, device: int) -> None:
        request = memoryview(bytearray(_REQUEST_BYTES))
        reply = memoryview(bytearray(OUT_HEADER.size + READ_BYTES_MAX))
        body = reply[OUT_HEADER.size :]
        arrivals = _Arrivals(device, request)
        afterwards = self._operations.afterwards
        quick = self._quick
        mine, opcode = False, 0
        try:
            while True:
                try:
                    # A READ that was quick: its reader may want more.
                    expected = mine and opcode == _READ
                    if not mine:
                        mine = self._turn.acquire()
                    length = arrivals.following(expected=expected)
                    _, opcode, unique, node_id, *_ = IN_HEADER.unpack_from(request)
                    if opcode not in quick:
                        self._turn.release()
                        mine = False
                    start = perf_counter()
                    failed, filled = self._operate(opcode, request[:length], node_id, body)
                    if opcode in _SHORT:
                        is_quick = perf_counter() - start < QUICK_SECONDS
                        (quick.add if is_quick else quick.discard)(opcode)
                    if failed is not None:
                        OUT_HEADER.pack_into(reply, 0, OUT_HEADER.size + filled, -failed, unique)
                        os.write(device, reply[: OUT_HEADER.size + filled])
                        if failed == 0 and opcode in afterwards:
                            afterwards[opcode](request)
                except OSError as error:
                    if _is_end(error):
                        return
        finally:
            if mine:
                self._turn.release()

    def _operate(
        self, opcode: int, request: memoryview, node_id: int, body: memoryview
    ) -> tuple[int | None, int]:
        """The error number (0: none, None: send no answer) and the bytes of `body` filled."""
        operations = self._operations
        try:
            handler = operations.handlers.get(opcode)
            if handler is not None:
                return 0, handler(request, node_id, body)
            silent = operations.silent.get(opcode)
            if silent is None:
                return errno.ENOSYS, 0
            silent(request, node_id)
        except Exception as error:  # noqa: BLE001 - else this thread, and with the last the mount, ends
            failed = operations.errno_of(error, node_id)
            return (None if opcode in operations.silent else failed), 0
        return None, 0


def _is_end(error: OSError) -> bool:
    """Whether the mount is gone; what else is wrong with the device is said and borne."""
    if error.errno not in _GONE | _AGAIN:
        log.error("/dev/fuse: %s", error.strerror)
    return error.errno in _GONE
