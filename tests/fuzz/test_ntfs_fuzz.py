"""Whatever is damaged in a volume, reading all of it ends in time with declared errors only."""

import random
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from store.errors import CorruptError
from store.image import BytesImage, Image
from tests.fuzz.bounds import bounded_case, bounded_memory
from tests.fuzz.parser import VALUES, read_everything
from tests.guest.ntfs.conftest import need_ntfs_3g
from tests.guest.ntfs.damage import Patient
from tests.guest.ntfs.volume import SYSTEM_XATTRS, small_volume
from timefs.guest.ntfs import open_volume
from timefs.guest.ntfs.secure import SECURE_NUMBER
from timefs.tree import Folder

pytestmark = [pytest.mark.system, pytest.mark.root]

BATCH_CASES = 1000
SPECIAL = ("system", "data", "packed/text", "reparse points/file", "reparse points/junction",
           "reparse points/absolute", "reparse points/Target Folder/loop")  # fmt: skip
"""Files with something of their own, damaged more often than the others."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All cases, a batch a test."""
    if "batch" in metafunc.fixturenames:
        cases = metafunc.config.getoption("--cases")
        assert isinstance(cases, int)
        starts = range(0, cases, BATCH_CASES)
        metafunc.parametrize("batch", [range(at, min(at + BATCH_CASES, cases)) for at in starts])


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    need_ntfs_3g()
    return small_volume(tmp_path_factory.mktemp("fuzz") / "small")


class Vandal:
    """Damages a volume where its structures are; the same seed does the same damage."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        patient = Patient(content)
        self.records = [number for number in range(patient.records) if used(patient, number)]
        self.blocks = [place for name in ("many", "times", "folder", "folder/inner")
                       for place in blocks(patient, name)]  # fmt: skip
        self.blocks += patient.blocks(5)
        self.records += [patient.number(name) for name in SPECIAL] * 5
        self.packed = patient.extents("packed/text")
        self.packed += patient.runs_of(patient.number("system"))
        self.packed += patient.runs_of(SECURE_NUMBER)

    def damaged(self, seed: int) -> bytes:
        chance = random.Random(seed)
        patient = Patient(self.content)
        for _ in range(chance.choice((1, 1, 2, 5))):
            repaired = chance.random() < 0.5
            if chance.random() < 0.03:
                mutate(patient.content, 0, 512, chance)
            elif chance.random() < 0.2:
                mutate(patient.content, *chance.choice(self.packed), chance)
            elif chance.random() < 0.3:
                self._damage(patient, chance.choice(self.blocks), 4096, chance, repaired=repaired)
            else:
                place = patient.place(chance.choice(self.records))
                length = patient.geometry.record_bytes
                self._damage(patient, place, length, chance, repaired=repaired)
        return bytes(patient.content)

    def _damage(
        self, patient: Patient, place: int, length: int, chance: random.Random, *, repaired: bool
    ) -> None:
        if not repaired:
            mutate(patient.content, place, length, chance)
            return
        edit = patient.edit_structure
        with suppress(CorruptError, struct.error):  # damaged before, beyond repair
            edit(place, length, lambda data: mutate(data, 0, length, chance))


def used(patient: Patient, number: int) -> bool:
    with suppress(CorruptError):
        return patient.record(number).in_use
    return False


def blocks(patient: Patient, name: str) -> list[int]:
    return patient.blocks(patient.number(name))


def mutate(data: bytearray, place: int, length: int, chance: random.Random) -> None:
    """One change within a structure: most fields lie in its first half, aligned."""
    span = chance.choice((64, length // 3, length))
    at = place + chance.randrange(span)
    match chance.randrange(6):
        case 0:
            data[at] ^= 1 << chance.randrange(8)
        case 1:
            data[at] = chance.randrange(256)
        case 2 | 3:
            width = chance.choice((2, 4, 8))
            at = place + (at - place) // width * width
            value = chance.choice(VALUES) & ((1 << 8 * width) - 1)
            data[at : at + width] = value.to_bytes(width, "little")
        case 4:
            count = min(chance.randrange(1, 64), place + length - at)
            data[at : at + count] = chance.choice((bytes(count), chance.randbytes(count)))
        case _:
            count = 8 * chance.randrange(1, 16)
            source = place + chance.randrange(length - count)
            target = place + chance.randrange(length - count)
            data[target : target + count] = data[source : source + count]


def read(content: bytes) -> int:
    return read_everything(BytesImage(content), open_root, SYSTEM_XATTRS)


def open_root(volume: Image) -> Folder:
    return open_volume(volume, b"fuzz").root


@pytest.mark.timeout(0)  # each case has its own alarm; a batch may take minutes
def test_a_damaged_volume_gives_declared_errors_only(
    volume: bytes, batch: range, tmp_path: Path
) -> None:
    vandal = Vandal(volume)
    whole = read(volume)
    assert whole > 80
    seen = 0
    with bounded_memory():
        for case in batch:
            content = vandal.damaged(case)
            with bounded_case(case, content, tmp_path):
                seen += read(content)
    assert seen > len(batch) * whole // 4  # the damage is not so coarse that nothing opens
