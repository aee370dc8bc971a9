"""Users of this system.

Defined here and only here. Used by the share. Thread-safe.
"""

from store.errors import UnsupportedError

try:
    import pwd
except ImportError:  # not a POSIX system
    pwd = None


def is_user(name: str) -> bool:
    """Whether the system knows a user of that name.

    Raises:
        UnsupportedError: this system has no list of users that timefs knows.
    """
    if pwd is None:
        raise UnsupportedError("users: this system has no list of them that timefs knows")
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
