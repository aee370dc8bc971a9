"""NTFS volumes that claim much or lead in circles: every operation ends in time and memory."""

import struct
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path

import pytest

from store.errors import CorruptError, UnsupportedError
from tests.fuzz.bounds import bounded_case, bounded_memory
from tests.guest.ntfs.conftest import need_ntfs_3g
from tests.guest.ntfs.damage import Patient
from tests.guest.ntfs.volume import small_volume
from timefs.guest.ntfs.btree import BLOCK_HEADER, NO_CHILD, ROOT_HEADER, scan_node
from timefs.guest.ntfs.record import DATA, FILE_NAME, INDEX_ROOT
from timefs.tree import Folder, Leaf, Node, descend, walk

pytestmark = [pytest.mark.system, pytest.mark.root]

HUGE = 1 << 50
LOOKED_AT = ("", "many", "folder", "folder/inner", "many/name 01", "data", "pieces")
Attack = Callable[[Patient], None]


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    need_ntfs_3g()
    return small_volume(tmp_path_factory.mktemp("hostile") / "small")


def claimed(patient: Patient, number: int, kind: int) -> None:
    """Make the sizes of an attribute in clusters huge."""
    at, _ = patient.attribute(number, kind)
    sizes = struct.pack("<QQQ", HUGE, HUGE, HUGE)
    patient.edit_record(number, lambda data: data.__setitem__(slice(at + 40, at + 64), sizes))


def huge_table(patient: Patient) -> None:
    """$MFT says that it has petabytes."""
    claimed(patient, 0, DATA)


def huge_file(patient: Patient) -> None:
    """So does a file."""
    claimed(patient, patient.number("data"), DATA)


def children_alike(patient: Patient) -> None:
    """Every child of a folder's index is the same block."""

    def change(value: bytearray) -> None:
        places, children = scan_node(bytes(value), ROOT_HEADER, "root")
        assert any(child != NO_CHILD for child in children)
        ends = [at + int(struct.unpack_from("<H", value, at + 8)[0]) for at, _ in places]
        at = ends[-1] if ends else ROOT_HEADER + 16
        ends.append(at + int(struct.unpack_from("<H", value, at + 8)[0]))
        for end in ends:
            struct.pack_into("<q", value, end - 8, children[0])

    patient.edit_value(patient.number("many"), INDEX_ROOT, change)


def lead_to(target: str) -> Attack:
    """Every name of a folder leads to one folder, which says that it lies there."""

    def attack(patient: Patient) -> None:
        number = patient.number(target) if target else 5
        reference = patient.record(number).sequence << 48 | number
        many = patient.number("many")

        def change(data: bytearray) -> None:
            for at, _ in scan_node(bytes(data), BLOCK_HEADER, "block")[0]:
                struct.pack_into("<Q", data, at, reference)
                struct.pack_into("<I", data, at + 16 + 56, 0x10000000)

        for block in patient.blocks(many):
            with suppress(CorruptError):  # one that is not in use
                patient.edit_structure(block, 4096, change)
        parent = many.to_bytes(6, "little")
        patient.edit_value(number, FILE_NAME, lambda value: value.__setitem__(slice(6), parent))

    attack.__name__ = f"lead_to_{target or 'root'}".replace("/", "_")
    return attack


ATTACKS = (huge_table, huge_file, children_alike, lead_to("folder/inner"), lead_to("many"),
           lead_to(""))  # fmt: skip


def look(root: Folder, path: str) -> None:
    """All that can be asked of one node."""
    with suppress(CorruptError, UnsupportedError):
        node: Node = walk(root, path.encode().split(b"/")) if path else root
        with suppress(CorruptError, UnsupportedError):
            node.attributes()
        if isinstance(node, Folder):
            with suppress(CorruptError, UnsupportedError):
                for name, _, _ in chain.from_iterable(node.entries_with_attributes()):
                    node.lookup(name)
        elif isinstance(node, Leaf):
            image = node.open()
            for offset in (0, max(0, image.size - 4096)):
                image.read(offset, 4096)


@pytest.mark.parametrize("attack", ATTACKS)
def test_every_operation_ends_in_time_and_memory(attack: Attack, volume: bytes, tmp_path: Path):
    patient = Patient(volume)
    attack(patient)
    content = bytes(patient.content)
    assert content != volume
    with bounded_memory():
        for path in LOOKED_AT:
            with bounded_case(0, content, tmp_path), suppress(CorruptError):
                look(patient.open().root, path)
        with bounded_case(0, content, tmp_path), suppress(CorruptError):
            root = patient.open().root
            met = sum(1 for _ in descend(root, failed=lambda _path, _error: None))
            assert met < 1000
