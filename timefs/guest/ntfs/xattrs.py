"""Extended attributes of files and folders, by the names that ntfs-3g gives them.

Defined here and only here: `Xattrs`. Used by `node`. Thread-safe and immutable.

As with ntfs-3g, a listing shows the alternate streams and not the `system.` names, which are
answered when they are asked for: programs that copy all attributes would stumble over them.

    user.STREAM                 an alternate stream of at most 64 KiB: the kernel takes no more
    system.ntfs_attrib          the flags, 32 bits; for a folder with FILE_ATTRIBUTE_DIRECTORY
    system.ntfs_times           created, modified, accessed, changed, in 100 ns since 1601
    system.ntfs_acl             the security descriptor, self-relative
    system.ntfs_reparse_data    the reparse point, header and all
    system.ntfs_object_id       the object id, with its birth ids where the volume's index has them
    system.ntfs_dos_name        the 8.3 name of what has one name beside it
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from store.errors import CorruptError, UnsupportedError
from timefs.guest.ntfs.index import NAMESPACE_DOS, Indexes
from timefs.guest.ntfs.name import show_name
from timefs.guest.ntfs.objects import ObjectIds
from timefs.guest.ntfs.record import DATA, FILE_NAME, STANDARD_INFORMATION
from timefs.guest.ntfs.reparse import WOF, read_reparse
from timefs.guest.ntfs.secure import Descriptors
from timefs.guest.ntfs.table import FileRecord, Table
from timefs.guest.ntfs.wof import WOF_STREAM

USER: Final = b"user."
XATTR_BYTES_MAX: Final = 64 << 10

ATTRIB_FOLDER: Final = 0x10
"""What readers expect in a folder's flags; the volume does not store it."""

DOS_UNITS_MAX: Final = 12
_STANDARD: Final = struct.Struct("<qqqqI")
_NAME: Final = struct.Struct("<64xBB")


class Standard(NamedTuple):
    """Times in ticks of 100 ns since 1601, and the flags."""

    created: int
    modified: int
    changed: int
    accessed: int
    flags: int


def read_standard(file: FileRecord) -> Standard:
    """A file's standard information.

    Raises:
        CorruptError: there is none.
    """
    standard = file.first(STANDARD_INFORMATION)
    if standard is None or standard.value is None or standard.size < _STANDARD.size:
        raise CorruptError(f"{file.record.where}: expected standard information, found none")
    return Standard(*_STANDARD.unpack_from(standard.value))


class Origins:
    """Where the attributes of a volume's files that are kept apart from them come from."""

    def __init__(self, table: Table, indexes: Indexes) -> None:
        self._descriptors = Descriptors(table)
        self._object_ids = ObjectIds(table, indexes)
        self._indexes = indexes
        self.known: Mapping[bytes, Callable[[FileRecord], bytes | None]] = {
            b"system.ntfs_attrib": _attrib,
            b"system.ntfs_times": _times,
            b"system.ntfs_acl": self._descriptors.of,
            b"system.ntfs_reparse_data": _reparse_data,
            b"system.ntfs_object_id": self._object_ids.of,
            b"system.ntfs_dos_name": self._dos_name,
        }
        """By name, what gives the value for a file: None where the file has none."""

    def _dos_name(self, file: FileRecord) -> bytes | None:
        alias = b""
        others = 0
        for piece in file.pieces(FILE_NAME):
            value = piece.value or b""
            if len(value) < _NAME.size:
                raise CorruptError(f"{file.record.where}: a name of {len(value)} bytes")
            units, namespace = _NAME.unpack_from(value)
            others += namespace != NAMESPACE_DOS
            if namespace & NAMESPACE_DOS:
                alias = value[66 : 66 + 2 * min(units, DOS_UNITS_MAX)]
        if not alias or others != 1:
            return None
        return show_name(self._indexes.collation.upper(alias[: len(alias) & ~1]))


def _attrib(file: FileRecord) -> bytes:
    flags = read_standard(file).flags | (ATTRIB_FOLDER if file.record.folder else 0)
    return flags.to_bytes(4, "little")


def _times(file: FileRecord) -> bytes:
    created, modified, changed, accessed, _ = read_standard(file)
    return struct.pack("<qqqq", created, modified, accessed, changed)


def _reparse_data(file: FileRecord) -> bytes | None:
    reparse = read_reparse(file)
    return None if reparse is None else reparse.value


class Xattrs(Mapping[bytes, bytes]):
    """The extended attributes of one file. Values are read when they are asked for.

    So is the file's record: programs that list a folder ask every file for attributes that no
    volume of this kind has.
    """

    def __init__(
        self,
        origins: Origins,
        read_file: Callable[[], FileRecord],
        computed: Mapping[bytes, Callable[[], bytes]],
    ) -> None:
        self._origins = origins
        self._read_file = read_file
        self._computed = computed
        self._known: tuple[FileRecord, dict[bytes, bytes]] | None = None

    def _opened(self) -> tuple[FileRecord, dict[bytes, bytes]]:
        """The record, and the names of streams as attributes and as stored (UTF-16LE)."""
        if self._known is None:
            file = self._read_file()
            self._known = (file, _streams(file))
        return self._known

    def __getitem__(self, name: bytes) -> bytes:
        if name in self._computed:
            return self._computed[name]()
        origin = self._origins.known.get(name)
        if origin is None:
            if not name.startswith(USER):
                raise KeyError(name)
            file, streams = self._opened()
            return _value(file, streams[name])
        value = origin(self._opened()[0])
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[bytes]:
        return iter({**self._computed, **self._opened()[1]})

    def __len__(self) -> int:
        return len(list(iter(self)))


def _streams(file: FileRecord) -> dict[bytes, bytes]:
    """The file's alternate streams: what holds its own content is none."""
    reparse = read_reparse(file)
    hidden = WOF_STREAM if reparse is not None and reparse.tag == WOF else None
    names = [name for name in file.names(DATA) if name and name != hidden]
    return {USER + show_name(name): name for name in names}


def _value(file: FileRecord, name: bytes) -> bytes:
    """The content of a stream."""
    stream = file.open(DATA, name)
    if stream.size > XATTR_BYTES_MAX:
        raise UnsupportedError(
            f"{file.record.where}: stream {show_name(name).decode(errors='replace')}:"
            f" {stream.size} bytes, an extended attribute has at most {XATTR_BYTES_MAX};"
            " open it as NAME:STREAM"
        )
    return stream.read(0, stream.size)
