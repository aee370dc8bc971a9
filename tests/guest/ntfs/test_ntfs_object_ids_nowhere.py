"""$Extend says that the index of object ids lies in record 0: damage, found by fuzzing."""

import pytest

from store.errors import CorruptError
from tests.guest.ntfs.conftest import need_ntfs_3g
from tests.guest.ntfs.damage import Patient
from tests.guest.ntfs.volume import small_volume
from timefs.guest.ntfs.objects import EXTEND_NUMBER

pytestmark = [pytest.mark.system, pytest.mark.root]

NAME = "$ObjId".encode("utf-16-le")
REFERENCE_BEFORE_NAME = 16 + 66
"""An index entry begins with its reference; 16 bytes of header and 66 of its key go before."""


def test_it_is_damage_and_the_file_is_read_all_the_same(tmp_path_factory: pytest.TempPathFactory):
    need_ntfs_3g()
    patient = Patient(small_volume(tmp_path_factory.mktemp("nowhere") / "small"))

    def forget(data: bytearray) -> None:
        at = data.index(NAME) - REFERENCE_BEFORE_NAME
        data[at : at + 8] = bytes(8)

    record_bytes = patient.geometry.record_bytes
    whole = patient.node("data").xattrs().get(b"system.ntfs_object_id")
    assert whole is not None
    patient.edit_structure(patient.place(EXTEND_NUMBER), record_bytes, forget)
    node = patient.node("data")
    with pytest.raises(CorruptError, match=r"\$ObjId"):
        node.xattrs().get(b"system.ntfs_object_id")
    assert node.xattrs()[b"system.ntfs_times"]
