"""Object ids: the identifiers by which Windows tracks files, with where they were born.

Defined here and only here: `ObjectIds`. Used by `xattrs`. Immutable and thread-safe.
"""

from functools import cached_property
from typing import Final

from store.errors import CorruptError
from timefs.guest.ntfs.index import Indexes
from timefs.guest.ntfs.record import NUMBER_MASK, OBJECT_ID
from timefs.guest.ntfs.table import FileRecord, Table
from timefs.guest.ntfs.view import View

EXTEND_NUMBER: Final = 11
ID_BYTES: Final = 16
BIRTH_BYTES: Final = 48
_FOLDER: Final = "$ObjId".encode("utf-16-le")
_VIEW: Final = "$O".encode("utf-16-le")


class ObjectIds:
    """The object ids of one volume."""

    def __init__(self, table: Table, indexes: Indexes) -> None:
        self._table = table
        self._indexes = indexes

    def of(self, file: FileRecord) -> bytes | None:
        """A file's id, and its birth volume, birth id and domain where they are known.

        Raises:
            CorruptError: the id or the volume's index of ids is damaged.
        """
        attribute = file.first(OBJECT_ID)
        if attribute is None:
            return None
        own = (attribute.value or b"")[:ID_BYTES]
        if len(own) < ID_BYTES:
            raise CorruptError(f"{file.record.where}: expected an object id, got {own!r}")
        found = self._view.find(own) if self._view is not None else None
        if found is None or len(found) < 8 + BIRTH_BYTES:
            return own
        return own + found[8 : 8 + BIRTH_BYTES]

    @cached_property
    def _view(self) -> View | None:
        """The index $O; None on a volume that has none."""
        entry = self._indexes.of(EXTEND_NUMBER).find(_FOLDER)
        if entry is None:
            return None
        if not entry.reference & NUMBER_MASK:
            raise CorruptError("$Extend: expected $ObjId to have a record of its own, got $MFT's")
        file = self._table.file(entry.reference)
        return View(file, _VIEW, self._table.geometry.cluster_bytes)
