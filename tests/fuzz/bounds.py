"""The bounds that a parser keeps whatever it is given: work a case, memory, and a kept culprit."""

import gc
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

CASE_SECONDS = 2.0
GROWTH_BYTES_MAX = 256 << 20
SELF = Path("/proc/self")


@contextmanager
def bounded_case(case: int, content: bytes, folder: Path) -> Generator[None]:
    """Fails a case that computes for too long, however busy the machine is; keeps what fails."""

    def ring(signum: int, frame: FrameType | None) -> None:
        raise AssertionError(f"case {case} took more than {CASE_SECONDS} s of processor time")

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, CASE_SECONDS)
    try:
        yield
    except BaseException:
        signal.setitimer(signal.ITIMER_PROF, 0)
        (folder / "damaged").write_bytes(content)
        print(f"case {case} failed; what it was given is {folder / 'damaged'}")
        raise
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        gc.collect()


@contextmanager
def bounded_memory() -> Generator[None]:
    """Fails if this process's memory rose by more than the limit at any moment.

    A closed volume is a cycle and holds its whole image: so that no more than one counts, each case
    looks for cycles when it ends, among what was made since.
    """
    gc.collect()
    gc.freeze()
    (SELF / "clear_refs").write_text("5")  # the peak counts from here on, not from other tests
    before = _status_bytes("VmRSS")
    try:
        yield
    finally:
        gc.unfreeze()
    growth = _status_bytes("VmHWM") - before
    assert growth < GROWTH_BYTES_MAX, f"memory rose by {growth} bytes"


def _status_bytes(field: str) -> int:
    """A field of proc(5), /proc/pid/status."""
    return int((SELF / "status").read_text().partition(f"{field}:")[2].split()[0]) << 10
