"""The one error tree: every error that timefs raises on purpose, and nothing else.

Used by every package. Each class carries the process exit code (`exit_code`), the file-system
error number (`errno_code`) and a stable word for JSON (`kind`); they are translated in exactly two
places, the command line and the mount's core. All values are immutable; any thread may raise them.

    TimefsError                1  EIO      failed
    ├── UsageError             2  EINVAL   usage
    ├── IncompleteError        3  EIO      incomplete
    ├── BusyError              4  EBUSY    busy
    ├── DamagedError           5  EIO      damaged        our own stored bytes are wrong or missing
    ├── ForkedError            5  EIO      forked         another history than was known
    ├── StrayError             5  EIO      stray          a pack that does not continue its line
    ├── CorruptError           5  EIO      corrupt        a captured image or volume is damaged
    ├── UnsupportedError       1  EIO      unsupported    known, and not decoded by this version
    ├── CostError              1  EIO      too-costly     given up: it would cost too much
    ├── NoRepositoryError     10  ENOENT   no-repository
    ├── WrongKeyError         12  EACCES   wrong-key
    ├── NotFoundError          1  ENOENT   not-found
    ├── ExistsError            1  EEXIST   exists
    ├── NotFolderError         1  ENOTDIR  not-a-folder
    ├── IsFolderError          1  EISDIR   is-a-folder
    ├── ReadOnlyError          1  EROFS    read-only
    ├── FullError              1  ENOSPC   full
    ├── DeniedError            1  EACCES   denied
    └── InterruptError       130  EINTR    interrupted    a signal asked for the end

Messages are one plain line: where, what, expected, got, what to do.
"""

import errno
from typing import ClassVar


class TimefsError(Exception):
    """Anything that timefs itself reports; the message is one line for a person."""

    exit_code: ClassVar[int] = 1
    errno_code: ClassVar[int] = errno.EIO
    kind: ClassVar[str] = "failed"


class UsageError(TimefsError):
    """The command was asked for something that makes no sense."""

    exit_code = 2
    errno_code = errno.EINVAL
    kind = "usage"


class IncompleteError(TimefsError):
    """The work was done, but part of it is missing or doubtful."""

    exit_code = 3
    kind = "incomplete"


class BusyError(TimefsError):
    """Somebody else holds what is needed; waiting may help."""

    exit_code = 4
    errno_code = errno.EBUSY
    kind = "busy"


class DamagedError(TimefsError):
    """Stored bytes are wrong or missing: a pack, the index or the catalog."""

    exit_code = 5
    kind = "damaged"


class ForkedError(TimefsError):
    """A machine's packs are not those that this host knew: another line of history."""

    exit_code = 5
    kind = "forked"


class StrayError(TimefsError):
    """A pack that was not made behind the one that lies before it; it does not count."""

    exit_code = 5
    kind = "stray"


class CorruptError(TimefsError):
    """A captured image or the file system in it contradicts its own format."""

    exit_code = 5
    kind = "corrupt"


class UnsupportedError(TimefsError):
    """A known format or feature that this version does not decode."""

    kind = "unsupported"


class CostError(TimefsError):
    """A request was given up because it costs more than one request may."""

    kind = "too-costly"


class NoRepositoryError(TimefsError):
    """There is no repository at the place named."""

    exit_code = 10
    errno_code = errno.ENOENT
    kind = "no-repository"


class WrongKeyError(TimefsError):
    """The repository's key is not the one its content was written with."""

    exit_code = 12
    errno_code = errno.EACCES
    kind = "wrong-key"


class NotFoundError(TimefsError):
    """No such machine, instant, file or path."""

    errno_code = errno.ENOENT
    kind = "not-found"


class ExistsError(TimefsError):
    """The target is there already and was not to be replaced."""

    errno_code = errno.EEXIST
    kind = "exists"


class NotFolderError(TimefsError):
    """A folder was needed."""

    errno_code = errno.ENOTDIR
    kind = "not-a-folder"


class IsFolderError(TimefsError):
    """A file was needed."""

    errno_code = errno.EISDIR
    kind = "is-a-folder"


class ReadOnlyError(TimefsError):
    """The place cannot be written."""

    errno_code = errno.EROFS
    kind = "read-only"


class FullError(TimefsError):
    """The disk that had to take the bytes is full."""

    errno_code = errno.ENOSPC
    kind = "full"


class DeniedError(TimefsError):
    """The operating system does not allow it to this user."""

    errno_code = errno.EACCES
    kind = "denied"


class InterruptError(TimefsError):
    """A signal asked for the end."""

    exit_code = 130
    errno_code = errno.EINTR
    kind = "interrupted"
