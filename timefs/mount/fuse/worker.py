"""One thread of a device server: requests in, answers out.

Defined here and only here: `Worker` and `Shared`, what all workers of a mount have in common. Used
by the device server. A worker is its thread's own; a READ is answered from the buffer that the
image filled, with one write and no copy of ours.

Whoever has the turn waits for requests. While requests that are short by nature are quick (READs
decoded from memory, attributes of a node at hand) it keeps the turn, so that one thread serves and
the others sleep: two that contend for the interpreter's lock take twice the processor's time and
are hardly faster. Once one of such a kind had to wait for a disk, and for every other request, the
turn is passed on before the work begins.
"""

import errno
import logging
import os
import select
from collections.abc import Callable
from mmap import mmap
from time import perf_counter
from typing import Final

from store.budget import serve_under
from timefs.mount.fuse.operations import Operations
from timefs.mount.fuse.protocol import ARGUMENTS, IN_HEADER, INTERRUPT_IN, OUT_HEADER, Opcode
from timefs.mount.fuse.pruning import Pruning
from timefs.mount.fuse.requests import Requests
from timefs.mount.fuse.turn import Turn
from timefs.mount.fuse.watch import Watch

READ_BYTES_MAX: Final = 1 << 20
"""Largest READ that the kernel may send; fs.fuse.max_pages_limit of 256 pages."""

REQUEST_BYTES: Final = 1 << 16
"""Room for any other request."""

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

_GRANTS: Final = frozenset({Opcode.LOOKUP, Opcode.READDIRPLUS})
"""Kinds of requests by whose answers the kernel comes to hold nodes."""

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


class Shared:
    """What the workers of one mount have in common."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        self.requests = Requests()
        self.turn = Turn()
        self.watch = Watch(self.turn, self.requests)
        self.quick: set[int] = set(_SHORT)
        self.pruning = Pruning()
        operations.silent[Opcode.INTERRUPT] = self._interrupt

    def _interrupt(self, request: memoryview, _node_id: int) -> None:
        self.requests.interrupt(*INTERRUPT_IN.unpack_from(request, ARGUMENTS))


class Worker:
    """What one thread does until the mount is gone; owns `device`."""

    def __init__(self, device: int, shared: Shared) -> None:
        self._device = device
        self._shared = shared
        self._request = memoryview(mmap(-1, REQUEST_BYTES))  # takes memory where it is used
        self._reply = memoryview(mmap(-1, OUT_HEADER.size + READ_BYTES_MAX))
        self._body = self._reply[OUT_HEADER.size :]
        self._arrivals = _Arrivals(device, self._request)
        self._work = shared.requests.of_thread(device)
        self._has_turn = False
        self._opcode = 0

    def run(self) -> None:
        """Serve, whatever a request does."""
        serve_under(self._work)
        try:
            while True:
                try:
                    self._serve_next()
                except OSError as error:
                    if _is_end(error):
                        return
        finally:
            if self._has_turn:
                self._shared.turn.pass_on()
            os.close(self._device)

    def _serve_next(self) -> None:
        """Take in one request and answer it."""
        turn, quick, watch = self._shared.turn, self._shared.quick, self._shared.watch
        expected = self._has_turn and self._opcode == _READ  # its reader may want more
        if not self._has_turn:
            turn.take()
            self._has_turn = True
        length = self._arrivals.following(expected=expected)
        _, opcode, unique, node_id, _, _, process, *_ = IN_HEADER.unpack_from(self._request)
        self._opcode = opcode
        self._work.begin(unique, process)
        start = perf_counter()
        keeps_turn = opcode in quick
        if keeps_turn:
            turn.keep(start)
        else:
            self._has_turn = False
            turn.pass_on()
        if watch.at_rest:
            watch.wake()
        failed, filled = self._operate(opcode, self._request[:length], node_id)
        if opcode in _SHORT:
            is_quick = perf_counter() - start < QUICK_SECONDS
            (quick.add if is_quick else quick.discard)(opcode)
        self._work.end()
        if keeps_turn:
            self._has_turn = turn.reach_again()
        if failed is not None:
            self._answer(unique, failed, self._reply[: OUT_HEADER.size + filled])

    def _operate(self, opcode: int, request: memoryview, node_id: int) -> tuple[int | None, int]:
        """The error number (0: none, None: send no answer) and the bytes of the body filled."""
        operations = self._shared.operations
        try:
            handler = operations.handlers.get(opcode)
            if handler is not None:
                return 0, handler(request, node_id, self._body)
            silent = operations.silent.get(opcode)
            if silent is None:
                return errno.ENOSYS, 0
            silent(request, node_id)
        except Exception as error:  # noqa: BLE001 - else this thread, and with the last the mount, ends
            failed = operations.errno_of(error, node_id)
            return (None if opcode in operations.silent else failed), 0
        return None, 0

    def _answer(self, unique: int, failed: int, reply: memoryview) -> None:
        """Answer; undo what the kernel would have kept of an answer that it wants no more."""
        operations, opcode = self._shared.operations, self._opcode
        OUT_HEADER.pack_into(reply, 0, len(reply), -failed, unique)
        try:
            os.write(self._device, reply)
        except FileNotFoundError:
            if failed == 0 and opcode in operations.undone:
                operations.undone[opcode](reply[OUT_HEADER.size :])
            return
        if failed == 0 and opcode in operations.afterwards:
            self._work_afterwards(operations.afterwards[opcode])
        if opcode in _GRANTS and (surplus := operations.surplus()):
            self._shared.pruning.prune(self._device, surplus)

    def _work_afterwards(self, operate: Callable[[memoryview], None]) -> None:
        """What nobody waits for may cost no more than a request."""
        self._work.begin(0, 0)
        operate(self._request)
        self._work.end()


def _is_end(error: OSError) -> bool:
    """Whether the mount is gone; what else is wrong with the device is said and borne."""
    if error.errno not in _GONE | _AGAIN:
        log.error("/dev/fuse: %s", error.strerror)
    return error.errno in _GONE
