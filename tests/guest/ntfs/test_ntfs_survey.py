"""A listing's attributes, decoded many records at once, are what each node says of itself."""

import random
import struct
from contextlib import suppress
from itertools import chain

import pytest

from store.errors import CorruptError
from tests.guest.ntfs.damage import STRIDE, Patient
from timefs.guest.ntfs.file import FLAG_FOLDER, FLAG_REPARSE, NtfsFile
from timefs.guest.ntfs.folder import NtfsFolder
from timefs.guest.ntfs.index import IndexEntry
from timefs.guest.ntfs.survey import survey
from timefs.tree import Attributes, Folder, descend

pytestmark = [pytest.mark.system, pytest.mark.root]

CASES = 300
VALUES = (0, 1, 2, 7, 8, 16, 24, 72, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, (1 << 63) - 1,
          1 << 63)  # fmt: skip


def entry(reference: int, *, is_folder: bool) -> IndexEntry:
    """A folder's entry, as far as a survey looks at it."""
    return IndexEntry(reference, b"", 0, FLAG_FOLDER if is_folder else 0, 0)


def surveyed(patient: Patient) -> list[tuple[IndexEntry, Attributes | None]]:
    """Every record of the volume, taken for a file and for a folder, and in another use."""
    numbers = range(patient.records + 1)
    wanted = [
        entry(number, is_folder=is_folder) for number in numbers for is_folder in (False, True)
    ]
    wanted += [entry(7 << 48 | number, is_folder=False) for number in numbers]
    found = survey(patient.open().root.parts.table, wanted)
    return list(zip(wanted, found, strict=True))


def told(patient: Patient, wanted: IndexEntry) -> Attributes:
    """What the node itself says."""
    parts = patient.open().root.parts
    kind = NtfsFolder if wanted.flags else NtfsFile
    return kind(parts, wanted.reference).attributes()


def damage(patient: Patient, chance: random.Random) -> None:
    """One field of one record becomes something else, beneath fix-ups that hold."""
    number = chance.randrange(24, patient.records)
    width = chance.choice("BHIQ")
    value = chance.choice(VALUES) & (1 << 8 * struct.calcsize(width)) - 1
    at = chance.randrange(16, 500) & -struct.calcsize(width)
    with suppress(CorruptError):  # free, or damaged before beyond repair
        patient.edit_record(number, lambda data: struct.pack_into(f"<{width}", data, at, value))


def test_every_folder_lists_what_its_nodes_say(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timefs.guest.ntfs.folder.TOGETHER_MIN", 1)  # links lie in small folders
    root = patient.open().root
    folders = [root, *(node for _, node in descend(root) if isinstance(node, Folder))]
    together = 0
    for folder in folders:
        listed = list(chain.from_iterable(folder.entries_with_attributes()))
        assert [name for name, _, _ in listed] == [name for name, _ in folder.entries()]
        for _, node, attributes in listed:
            if attributes is not None:
                assert attributes == node.attributes()
                together += 1
    assert together >= 70


def test_all_ordinary_records_are_had_at_once(patient: Patient) -> None:
    found = dict(surveyed(patient))
    for name in ("many/name 07", "data", "folder/inner/text", "packed/text"):
        wanted = entry(patient.number(name), is_folder=False)
        assert found[wanted] == told(patient, wanted)
        assert found[wanted] is not None
        assert survey(patient.open().root.parts.table, [wanted._replace(flags=FLAG_REPARSE)]) == [
            None
        ]
    folder = entry(patient.number("folder"), is_folder=True)
    assert found[folder] == told(patient, folder) is not None


def test_whatever_is_damaged_no_attribute_is_other_than_its_node_says(patient: Patient) -> None:
    chance = random.Random(3)
    whole = bytes(patient.content)
    answered = 0
    for _ in range(CASES):
        hurt = Patient(whole)
        for _ in range(chance.choice((5, 20, 60))):
            damage(hurt, chance)
        parts = hurt.open().root.parts
        for wanted, attributes in surveyed(hurt):
            if attributes is not None:
                kind = NtfsFolder if wanted.flags else NtfsFile
                assert attributes == kind(parts, wanted.reference).attributes()
                answered += 1
    assert answered > 50 * CASES


def test_records_in_any_order_asked_twice_and_far_apart_are_each_their_own(
    patient: Patient,
) -> None:
    numbers = [patient.number(f"many/name {number:02}") for number in range(70)]
    random.Random(5).shuffle(numbers)
    wanted = [entry(each, is_folder=False) for each in (*numbers, patient.number("data"), *numbers)]
    wanted.insert(30, entry(1 << 40, is_folder=False))  # no such record
    for one, found in zip(wanted, survey(patient.open().root.parts.table, wanted), strict=True):
        assert found == (told(patient, one) if one.reference < 1 << 40 else None)


def test_a_file_that_was_met_is_had_again_without_its_name(patient: Patient) -> None:
    many = patient.node("many")
    assert isinstance(many, NtfsFolder)
    for name, node in many.entries():
        again = many.leaf_again(node.identity)
        assert again is not None
        assert again.identity == node.identity
        assert again.attributes() == node.attributes()
        assert again.attributes() == many.lookup(name).attributes()


def test_a_stream_that_was_met_is_not_taken_for_its_file(patient: Patient) -> None:
    root = patient.open().root
    assert root.leaf_again(root.lookup(b"data:stream").identity) is None


def test_a_torn_record_leaves_its_neighbours_in_the_listing(patient: Patient) -> None:
    many = patient.number("many")
    place = patient.place(patient.number("many/name 07"))
    patient.content[place + STRIDE - 1] ^= 1
    folder = patient.node("many")
    assert isinstance(folder, NtfsFolder)
    assert folder.number == many
    entries = chain.from_iterable(folder.entries_with_attributes())
    listed = {name: (node, found) for name, node, found in entries}
    assert len(listed) == 70
    node, attributes = listed.pop(b"name 07")
    assert attributes is None
    with pytest.raises(CorruptError, match="torn"):
        node.attributes()
    assert all(found == node.attributes() for node, found in listed.values())


def test_what_lies_before_a_damaged_block_is_listed_before_the_error(patient: Patient) -> None:
    blocks = patient.blocks(patient.number("many"))
    patient.content[blocks[-1] : blocks[-1] + 4] = b"BAAD"
    folder = patient.node("many")
    assert isinstance(folder, Folder)
    listed: list[bytes] = []
    with pytest.raises(CorruptError):
        listed += (name for name, _, _ in chain.from_iterable(folder.entries_with_attributes()))
    named: list[bytes] = []
    with pytest.raises(CorruptError):
        named += (name for name, _ in folder.entries())
    assert listed == named
    assert 0 < len(listed) < 70
