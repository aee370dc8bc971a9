"""Requests to a device driver.

Defined here and only here. Used by the mount's server. Thread-safe.
"""

from store.errors import UnsupportedError

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None


def control(descriptor: int, request: int, argument: bytes) -> None:
    """ioctl(2).

    Raises:
        OSError: the driver refuses.
        UnsupportedError: this system has no such request.
    """
    if fcntl is None:
        raise UnsupportedError("/dev/fuse: this system has no ioctl")
    fcntl.ioctl(descriptor, request, argument)
