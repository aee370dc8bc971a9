"""Whether who sent a request still wants its answer, once a signal has come.

Defined here and only here: `wants_end`. Used by the device server. Pure but for /proc.

The kernel tells of any signal, and tells once. A program that handles an alarm or the end of a
child does not expect that reading a file fails for it, as it never does on a disk; one that is
killed, or told to end, waits for nothing any more.

Source: proc(5), /proc/pid/status; signal(7).
"""

import signal
from pathlib import Path
from signal import Signals
from typing import Final


def _bits(*numbers: Signals) -> int:
    return sum(1 << number - 1 for number in numbers)


_KILL: Final = _bits(signal.SIGKILL)
_ASKED_TO_END: Final = _bits(signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""Whoever sends these wants the program to stop what it does, handled or not."""

_ENDS_NOTHING: Final = _bits(
    signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH,
    signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
)  # fmt: skip
"""Where they are not handled either."""


def wants_end(thread: int) -> bool:
    """Whether a thread (0: of a name space that is not ours) is to end; one not to be seen is."""
    try:
        status = Path(f"/proc/{thread}/status").read_text()
    except OSError:
        return True
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith("S"))
    private, shared, blocked, ignored, caught = (
        int(fields[name], 16) for name in ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")
    )
    pending = (private | shared) & ~blocked & ~ignored
    fatal = pending & ~caught & ~_ENDS_NOTHING
    return bool(fatal | pending & _ASKED_TO_END | private & _KILL)
