"""Files of a volume, and alternate streams as files of their own.

Defined here and only here: `NtfsFile` and `NtfsStream`. Used by `folder`. Thread-safe and
immutable.
"""

from typing import Final

from store.errors import CorruptError
from store.image import Image
from timefs.guest.ntfs.node import NtfsNode, Parts
from timefs.guest.ntfs.record import DATA, Attribute
from timefs.guest.ntfs.reparse import WOF, read_reparse, refuse
from timefs.guest.ntfs.table import FileRecord
from timefs.guest.ntfs.wof import WOF_STREAM, open_wof
from timefs.guest.ntfs.xattrs import read_standard
from timefs.tree import Attributes, Leaf

FILE_MODE: Final = 0o100444
FLAG_REPARSE: Final = 0x400
FLAG_FOLDER: Final = 0x10000000
USER_NUMBER_MIN: Final = 24
"""Records below belong to the file system itself: its $-files, which the root does not show."""


class NtfsFile(NtfsNode, Leaf):
    """A file."""

    _folder = False

    def attributes(self) -> Attributes:
        file = self.file()
        standard = read_standard(file)
        data = file.first(DATA)
        if data is None:
            own = self.number < USER_NUMBER_MIN or file.record.view
            if not own and read_reparse(file) is None:
                raise CorruptError(f"{file.record.where}: expected data, found none")
            return self._attributes(file, standard, FILE_MODE, 0, 0)
        stored = data
        if standard.flags & FLAG_REPARSE:
            reparse = read_reparse(file)
            if reparse is not None and reparse.tag == WOF:
                stored = file.first(DATA, WOF_STREAM) or data
        allocated = self._allocated(file, stored)
        return self._attributes(file, standard, FILE_MODE, data.size, allocated)

    def open(self) -> Image:
        file = self.file()
        reparse = read_reparse(file)
        if reparse is None:
            return file.open(DATA)
        if reparse.tag == WOF:
            return open_wof(file, reparse)
        raise refuse(file, reparse.tag)

    def _allocated(self, file: FileRecord, data: Attribute) -> int:
        geometry = self.parts.table.geometry
        if data.allocated_bytes > geometry.clusters * geometry.cluster_bytes:
            raise CorruptError(
                f"{file.record.where}: {data.allocated_bytes} bytes allocated, beyond the volume"
            )
        return data.allocated_bytes


class NtfsStream(NtfsFile):
    """An alternate stream of a file or folder, found as `NAME:STREAM` and never listed."""

    def __init__(self, parts: Parts, reference: int, name: bytes, *, of_folder: bool) -> None:
        """`name` is the stream's, UTF-16LE."""
        super().__init__(parts, reference)
        self._name = name
        self._folder = of_folder

    @property
    def identity(self) -> bytes:
        return super().identity + b":" + self._name

    def attributes(self) -> Attributes:
        file = self.file()
        data = file.first(DATA, self._name)
        if data is None:
            raise CorruptError(f"{file.record.where}: expected a stream, found none")
        allocated = self._allocated(file, data)
        standard = read_standard(file)
        return self._attributes(file, standard, FILE_MODE, data.size, allocated)._replace(links=1)

    def open(self) -> Image:
        return self.file().open(DATA, self._name)
