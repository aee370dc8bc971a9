"""The requests that are being worked on: what each may cost, and who no longer waits for one.

Defined here and only here: `Request` and `Requests`. Used by the device server. A request is its
thread's own; `Requests` is thread-safe.
"""

import errno
import os
import time
from contextlib import suppress
from typing import Final

from store.budget import Budget
from timefs.mount.fuse.caller import wants_end
from timefs.mount.fuse.protocol import OUT_HEADER

LONG_SECONDS: Final = 0.02
"""A request that computes longer makes room for others, whose threads each wait up to 5 ms for the
interpreter's lock otherwise."""

SLICE_SECONDS: Final = 0.002
"""How long it then computes at a time."""

BREAK_SECONDS: Final = 0.0001
"""How long it rests at least: enough for another thread to wake up."""


class Request(Budget):
    """One request and its budget. All that are long compute in turn, as one thread would."""

    __slots__ = ("_others", "_room_at_seconds", "device", "process", "unique")

    def __init__(self, others: "Requests", device: int, unique: int, process: int) -> None:
        super().__init__()
        self._others = others
        self._room_at_seconds = LONG_SECONDS
        self.device = device
        self.unique = unique
        self.process = process

    def check(self) -> float:
        used_seconds = super().check()
        if used_seconds > self._room_at_seconds:
            self._others.make_room(self)
            self._room_at_seconds = used_seconds + SLICE_SECONDS
        return used_seconds


class Requests:
    """All requests of a mount that have no answer yet."""

    def __init__(self) -> None:
        self._open: dict[int, Request] = {}
        self._signalled: dict[int, Request] = {}
        self._long: set[Request] = set()

    def begin(self, device: int, unique: int, process: int) -> Request:
        """A request was read; before any other is, so that no interrupt of it comes first."""
        request = self._open[unique] = Request(self, device, unique, process)
        return request

    def end(self, request: Request) -> None:
        """It is about to be answered, or needs no answer."""
        self._open.pop(request.unique, None)  # all FORGETs have the number 0
        if self._long:
            self._long.discard(request)
        if self._signalled:
            self._signalled.pop(request.unique, None)

    def make_room(self, request: Request) -> None:
        """A long request lets others go first, if there are any: each other long one as well."""
        self._long.add(request)
        if len(self._open) > 1:
            time.sleep(BREAK_SECONDS + SLICE_SECONDS * (len(self._long) - 1))

    def interrupt(self, unique: int) -> None:
        """Who sent a request was sent a signal; the kernel tells of the first one alone."""
        request = self._open.get(unique)
        if request is not None:
            self._signalled[unique] = request
            self.give_up_unwanted()

    @property
    def signalled(self) -> bool:
        """Whether somebody who waits may be killed yet without our being told."""
        return bool(self._signalled)

    def give_up_unwanted(self) -> None:
        """Answer for whoever is to end: at once, whatever the thread at work is stuck in."""
        for request in list(self._signalled.values()):
            if wants_end(request.process):
                self._signalled.pop(request.unique, None)
                request.cancel()
                answer = OUT_HEADER.pack(OUT_HEADER.size, -errno.EINTR, request.unique)
                with suppress(OSError):  # it has been answered meanwhile
                    os.write(request.device, answer)
