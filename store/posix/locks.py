"""Locks of open files, which end with the process that holds them, however that ends.

Defined here and only here. Used by claims, the index and the share. Safe between processes.
"""

from store.errors import UnsupportedError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None


def lock_file(descriptor: int, *, wait: bool, shared: bool = False) -> bool:
    """Lock an open file; whether it is locked now.

    Raises:
        UnsupportedError: this system has no such locks.
    """
    if fcntl is None:
        raise UnsupportedError("locks of files: this system has none that timefs knows")
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True
