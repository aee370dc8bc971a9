"""Failures: every exception of a mounted tree becomes an error number here, and only here.

Defined here and only here: `Failures`. Used by the file-system core; adapters ask it for the number
to answer with. Thread-safe. What an operator must see (damage, and our own faults) is logged once
as one line; a repeat of the same line is dropped while it is remembered.
"""

import errno
import logging
from collections import OrderedDict
from threading import Lock
from typing import Final

from store.errors import TimefsError

LINES_REMEMBERED: Final = 1024

log = logging.getLogger(__name__)


class Failures:
    """Turns exceptions into error numbers and remembers what was logged."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def errno_of(self, error: Exception, where: str) -> int:
        """The error number to answer with; anything not foreseen is EIO, never ENOENT."""
        if isinstance(error, TimefsError):
            if error.errno_code == errno.EIO:
                self._say(f"{where}: {error}")
            return error.errno_code
        if isinstance(error, FileSystemError):
            return error.errno_code
        if self._say(f"{where}: unexpected {type(error).__name__}: {error}"):
            log.debug("%s: traceback", where, exc_info=error)
        return errno.EIO

    def _say(self, line: str) -> bool:
        """Log a line unless it was logged lately."""
        line = " ".join(line.split())
        with self._lock:
            known = line in self._lines
            self._lines[line] = None
            self._lines.move_to_end(line)
            while len(self._lines) > LINES_REMEMBERED:
                self._lines.popitem(last=False)
        if not known:
            log.error("%s", line)
        return not known


class FileSystemError(Exception):
    """A request that a file system answers with an error number of its own, such as ENODATA."""

    def __init__(self, errno_code: int) -> None:
        super().__init__(errno.errorcode[errno_code])
        self.errno_code = errno_code
