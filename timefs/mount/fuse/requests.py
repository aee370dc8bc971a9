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
    """What one thread works on, and its budget. All that are long compute in turn, as one would."""

    __slots__ = ("_cancelled_unique", "_others", "_room_at_seconds", "device", "process", "unique")

    def __init__(self, others: "Requests", device: int) -> None:
        """Nothing yet; its thread reads from `device`, and each answer has to go there."""
        super().__init__()
        self._others = others
        self._cancelled_unique = 0
        self._room_at_seconds = LONG_SECONDS
        self.device = device
        self.unique = 0
        """The kernel's number of the request, 0 between requests and for what needs no answer."""
        self.process = 0

    def begin(self, unique: int, process: int) -> None:
        """A request was read; no other is before this is known, nor an interrupt of it."""
        self.renew()
        self._room_at_seconds = LONG_SECONDS
        self.process = process
        self.unique = unique

    def end(self) -> None:
        """It is about to be answered, or needs no answer."""
        self.unique = 0
        if self._room_at_seconds != LONG_SECONDS:
            self._others.long.discard(self)

    def give_up(self, unique: int) -> None:
        """Answer for its thread, and have that end, unless it works on another one already."""
        self._cancelled_unique = unique
        self.cancel()
        with suppress(OSError):  # it has been answered meanwhile
            os.write(self.device, OUT_HEADER.pack(OUT_HEADER.size, -errno.EINTR, unique))

    def check(self) -> float:
        self.cancelled = self._cancelled_unique == self.unique != 0
        used_seconds = super().check()
        if used_seconds > self._room_at_seconds:
            self._others.make_room(self)
            self._room_at_seconds = used_seconds + SLICE_SECONDS
        return used_seconds


class Requests:
    """What all threads of a mount work on."""

    def __init__(self) -> None:
        self._all: list[Request] = []
        self._signalled: dict[int, Request] = {}
        self.long: set[Request] = set()

    def of_thread(self, device: int) -> Request:
        """For a thread that begins to serve."""
        request = Request(self, device)
        self._all.append(request)
        return request

    def make_room(self, request: Request) -> None:
        """A long request lets others go first, if there are any: each other long one as well."""
        self.long.add(request)
        if any(other.unique for other in self._all if other is not request):
            time.sleep(BREAK_SECONDS + SLICE_SECONDS * (len(self.long) - 1))

    def interrupt(self, unique: int) -> None:
        """Who sent a request was sent a signal; the kernel tells of the first one alone."""
        for request in self._all:
            if request.unique == unique:
                self._signalled[unique] = request
                self.give_up_unwanted()

    @property
    def signalled(self) -> bool:
        """Whether somebody who waits may be killed yet without our being told."""
        return bool(self._signalled)

    def give_up_unwanted(self) -> None:
        """Answer for whoever is to end: at once, whatever the thread at work is stuck in."""
        for unique, request in list(self._signalled.items()):
            process = request.process
            is_open = request.unique == unique
            if is_open and wants_end(process):
                request.give_up(unique)
                is_open = False
            if not is_open:
                self._signalled.pop(unique, None)
