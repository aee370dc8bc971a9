"""The watch over the threads of a device server: what is stuck holds up nobody else.

Defined here and only here: `Watch`. Used by the device server, which gives it a thread of its own,
and by its workers, which wake it. It rests while a thread waits for requests.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

from timefs.mount.fuse.requests import Requests
from timefs.mount.fuse.turn import Turn

LOOK_SECONDS: Final = 0.02
"""How often it is looked whether a request is stuck."""

HANDOVER_SECONDS: Final = 0.005
"""A turn that nobody has or takes within this was not just put down between two requests."""

LOOKS_BEFORE_REST: Final = 25


class Watch:
    """Looks after the turn and those who no longer wait, as long as requests come."""

    def __init__(self, turn: Turn, requests: Requests) -> None:
        self._turn = turn
        self._requests = requests
        self._woken = threading.Event()
        self._ended = False
        self.at_rest = True

    def wake(self) -> None:
        """A worker began to work."""
        self.at_rest = False
        self._woken.set()

    def end(self) -> None:
        """The mount is gone."""
        self._ended = True
        self._woken.set()

    def run(self, all_at_work: Callable[[], None]) -> None:
        """Watch until the end; `all_at_work` is called when no thread waits for requests."""
        looks = 0
        while not self._ended:
            self._turn.pass_on_overdue(time.perf_counter())
            self._requests.give_up_unwanted()
            if self._are_all_at_work():
                all_at_work()
            looks = looks + 1 if self._turn.is_awake() else 0
            if looks > LOOKS_BEFORE_REST and not self._requests.signalled:
                self._rest()
                looks = 0
            time.sleep(LOOK_SECONDS)

    def _rest(self) -> None:
        self._woken.clear()
        self.at_rest = True
        if self._turn.is_awake():  # who began to work before that was not asked to wake us
            self._woken.wait()

    def _are_all_at_work(self) -> bool:
        if not self._turn.is_left():
            return False
        times_taken = self._turn.times_taken
        time.sleep(HANDOVER_SECONDS)
        return self._turn.is_left() and self._turn.times_taken == times_taken
