"""Damage inside a volume: a clear error where it hurts, the rest stays served, nothing hangs."""

import struct
from collections.abc import Callable, Iterator

import pytest

from store.errors import CorruptError, DamagedError, NotFoundError, UnsupportedError
from store.image import BytesImage
from tests.guest.ntfs.damage import STRIDE, Patient
from timefs.guest.ntfs import open_volume
from timefs.guest.ntfs.record import (
    ATTRIBUTE_LIST,
    DATA,
    FILE_NAME,
    INDEX_ROOT,
    STANDARD_INFORMATION,
)
from timefs.tree import Folder, Leaf, Node, walk

pytestmark = [pytest.mark.system, pytest.mark.root]


def folder(node: Node) -> Folder:
    assert isinstance(node, Folder)
    return node


def content(node: Node) -> bytes:
    assert isinstance(node, Leaf)
    image = node.open()
    return image.read(0, image.size)


def test_the_small_volume_is_as_the_tests_need_it(patient: Patient) -> None:
    assert len(patient.blocks(patient.number("many"))) >= 3
    assert patient.attribute(patient.number("pieces"), ATTRIBUTE_LIST)[1].size > 100
    assert content(patient.node("folder/inner/text")) == b"plain text"


def test_a_torn_record_hurts_only_its_file(patient: Patient) -> None:
    place = patient.place(patient.number("many/name 07"))
    patient.content[place + STRIDE - 1] ^= 1
    many = folder(patient.node("many"))
    assert len(list(many.entries())) == 70
    hurt = many.lookup(b"name 07")
    with pytest.raises(CorruptError, match="torn"):
        hurt.attributes()
    with pytest.raises(CorruptError, match="torn"):
        content(hurt)
    assert content(many.lookup(b"name 08")) == b"8"


@pytest.mark.parametrize("at", [0, 4, 6, 20, 24])
def test_an_absurd_record_header_is_corrupt(patient: Patient, at: int) -> None:
    place = patient.place(patient.number("data"))
    patient.content[place + at : place + at + 2] = b"\xfe\xff"
    with pytest.raises(CorruptError):
        patient.node("data").attributes()
    assert content(patient.node("folder/inner/text")) == b"plain text"


def test_a_torn_index_block_is_an_error_and_never_an_absent_name(patient: Patient) -> None:
    for place in patient.blocks(patient.number("many")):
        patient.content[place + STRIDE - 1] ^= 1
    many = folder(patient.node("many"))
    with pytest.raises(CorruptError, match="torn"):
        list(many.entries())
    for number in range(71):
        try:
            many.lookup(b"name %02d" % number)
        except CorruptError:
            continue
        assert number < 70


def reverse_digits(upcase: bytearray) -> None:
    upcase[2 * ord("0") : 2 * ord("9") + 2] = "9876543210".encode("utf-16-le")


def test_names_out_of_order_are_found_all_the_same(patient: Patient) -> None:
    patient.edit_value(10, DATA, reverse_digits)
    many = folder(patient.node("many"))
    for name, node in many.entries():
        assert many.lookup(name).identity == node.identity
    with pytest.raises(NotFoundError):
        many.lookup(b"absent")


def test_a_damaged_upcase_table_hides_no_name(patient: Patient) -> None:
    patient.content[patient.place(10) + STRIDE - 1] ^= 1
    many = folder(patient.node("many"))
    for name, node in many.entries():
        assert many.lookup(name).identity == node.identity


def test_an_index_block_in_anothers_place_is_corrupt(patient: Patient) -> None:
    first, second, *_ = patient.blocks(patient.number("many"))
    patient.content[first : first + 4096] = patient.content[second : second + 4096]
    with pytest.raises(CorruptError, match="it says it is block"):
        list(folder(patient.node("many")).entries())


def test_runs_that_end_before_the_data_are_corrupt(patient: Patient) -> None:
    number = patient.number("data")
    at, _ = patient.attribute(number, DATA)
    sizes = struct.pack("<qq", 1 << 20, 1 << 20)
    patient.edit_record(number, lambda data: data.__setitem__(slice(at + 40, at + 56), sizes))
    with pytest.raises(CorruptError, match="expected runs for 1048576 bytes"):
        content(patient.node("data"))


def test_an_index_that_leads_back_to_itself_is_corrupt(patient: Patient) -> None:
    number = patient.number("many")
    own = [struct.unpack_from("<Q", patient.content, place + 16)[0]
           for place in patient.blocks(number)]  # fmt: skip
    root, _ = patient.attribute(number, INDEX_ROOT)

    def all_to_one(data: bytearray) -> None:
        at = root + struct.unpack_from("<H", data, root + 20)[0] + 32
        while True:
            length, _, flags = struct.unpack_from("<HHH", data, at + 8)
            struct.pack_into("<Q", data, at + length - 8, own[0])
            if flags & 2:
                return
            at += length

    patient.edit_record(number, all_to_one)
    many = folder(patient.node("many"))
    with pytest.raises(CorruptError, match="reached twice"):
        list(many.entries())
    with pytest.raises(CorruptError):
        many.lookup(b"absent")


def test_a_folder_inside_itself_is_corrupt(patient: Patient) -> None:
    inner, outer = patient.number("folder/inner"), patient.number("folder")
    name, _ = patient.attribute(outer, FILE_NAME)

    def move(data: bytearray) -> None:
        struct.pack_into("<I", data, name + 24, inner)

    patient.edit_record(outer, move)
    with pytest.raises(CorruptError, match="parent"):
        list(folder(patient.node("folder")).entries())


def each_entry(value: bytearray) -> Iterator[tuple[int, int]]:
    """Place and kind of each entry of an attribute list."""
    place = 0
    while place < len(value):
        kind, length = struct.unpack_from("<IH", value, place)
        yield place, kind
        place += length


@pytest.mark.parametrize(
    "reference", [5, 0xFFFFFF, (1 << 48) - 1, 9999 << 48 | 30], ids=["other", "far", "most", "use"]
)
def test_a_list_that_leads_elsewhere_is_corrupt(patient: Patient, reference: int) -> None:
    def lead(value: bytearray) -> None:
        for place, kind in list(each_entry(value)):
            if kind == DATA:
                struct.pack_into("<Q", value, place + 16, reference)

    patient.edit_value(patient.number("pieces"), ATTRIBUTE_LIST, lead)
    with pytest.raises(CorruptError):
        content(patient.node("pieces"))
    assert len(content(patient.node("data"))) == 10_000


@pytest.mark.parametrize("kind", [DATA, ATTRIBUTE_LIST])
def test_a_list_that_leads_to_itself_ends(patient: Patient, kind: int) -> None:
    number = patient.number("pieces")
    own = patient.record(number).sequence << 48 | number

    def lead(value: bytearray) -> None:
        for place, _ in list(each_entry(value)):
            struct.pack_into("<I", value, place, kind)
            struct.pack_into("<Q", value, place + 16, own)

    patient.edit_value(number, ATTRIBUTE_LIST, lead)
    with pytest.raises(CorruptError):
        content(patient.node("pieces"))


def further_records(patient: Patient) -> list[int]:
    """The records, beside its first, that hold the data of the file in pieces."""
    holders: list[int] = []

    def note(value: bytearray) -> None:
        holders.extend(
            int.from_bytes(value[place + 16 : place + 22], "little")
            for place, kind in each_entry(value)
            if kind == DATA and struct.unpack_from("<Q", value, place + 8)[0]
        )

    patient.edit_value(patient.number("pieces"), ATTRIBUTE_LIST, note)
    return holders


def test_a_further_record_of_another_file_is_corrupt(patient: Patient) -> None:
    other = patient.number("data")
    last = further_records(patient)[-1]
    patient.edit_record(last, lambda data: struct.pack_into("<I", data, 32, other))
    with pytest.raises(CorruptError, match="expected to continue"):
        content(patient.node("pieces"))


def test_a_damaged_further_record_hurts_only_what_it_holds(patient: Patient) -> None:
    patient.content[patient.place(further_records(patient)[-1]) + STRIDE - 1] ^= 1
    assert patient.node("pieces").attributes().size == 399 * 2048 + 1024
    with pytest.raises(CorruptError, match="torn"):
        content(patient.node("pieces"))


@pytest.mark.parametrize("length", [0, 8, 0xFFFF])
def test_an_absurd_list_entry_is_corrupt(patient: Patient, length: int) -> None:
    patient.edit_value(
        patient.number("pieces"),
        ATTRIBUTE_LIST,
        lambda value: struct.pack_into("<H", value, 4, length),
    )
    with pytest.raises(CorruptError, match="absurd entry"):
        patient.node("pieces").attributes()


SIZES = {"allocated": 40, "size": 48, "initialised": 56}


@pytest.mark.parametrize("field", SIZES)
@pytest.mark.parametrize("value", [-1, -(1 << 63), (1 << 63) - 1])
def test_absurd_sizes_are_corrupt(patient: Patient, field: str, value: int) -> None:
    number = patient.number("data")
    at, _ = patient.attribute(number, DATA)
    patient.edit_record(number, lambda data: struct.pack_into("<q", data, at + SIZES[field], value))
    with pytest.raises(CorruptError):
        patient.node("data").attributes()


@pytest.mark.parametrize(
    "pairs",
    [
        b"\x31\x0a\xff\xff\x7f\x00",  # beyond the volume
        b"\x11\x0a\x80\x00",  # before its start
        b"\x11\xff\x10\x00",  # a negative length
        b"\x11\x00\x10\x00",  # an empty run
        b"\x11\x05\x10\x00",  # too short
        b"\x11\x7f\x10\x00",  # too long
        b"\xff\x01\x01\x00",  # absurd widths
        b"\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x00",  # a hole of 8 exabytes
        b"\x00",  # nothing
    ],
)
def test_absurd_runs_are_corrupt(patient: Patient, pairs: bytes) -> None:
    number = patient.number("data")
    at, _ = patient.attribute(number, DATA)
    start = at + 64

    def change(data: bytearray) -> None:
        struct.pack_into("<H", data, at + 32, 64)
        end = at + struct.unpack_from("<I", data, at + 4)[0]
        data[start:end] = pairs[: end - start].ljust(end - start, b"\0")

    patient.edit_record(number, change)
    with pytest.raises(CorruptError):
        content(patient.node("data"))
    assert content(patient.node("folder/inner/text")) == b"plain text"


def test_an_entry_that_points_to_another_use_of_its_record_is_corrupt(patient: Patient) -> None:
    number = patient.number("data")
    patient.edit_record(number, lambda data: struct.pack_into("<H", data, 16, 999))
    with pytest.raises(CorruptError, match="999"):
        patient.node("data").attributes()


def test_a_record_of_another_kind_than_its_entry_says_is_corrupt(patient: Patient) -> None:
    file, inner = patient.number("data"), patient.number("folder/inner")
    patient.edit_record(file, lambda data: struct.pack_into("<H", data, 22, 3))
    patient.edit_record(inner, lambda data: struct.pack_into("<H", data, 22, 1))
    with pytest.raises(CorruptError, match="expected a file, got a folder"):
        patient.node("data").attributes()
    with pytest.raises(CorruptError, match="expected a folder, got a file"):
        list(folder(patient.node("folder/inner")).entries())


def test_a_free_record_is_corrupt_where_a_name_leads_to_it(patient: Patient) -> None:
    number = patient.number("data")
    patient.edit_record(number, lambda data: struct.pack_into("<H", data, 22, 0))
    with pytest.raises(CorruptError, match="free"):
        patient.node("data").attributes()


def test_an_entry_outside_the_table_is_corrupt(patient: Patient) -> None:
    number = patient.number("folder/inner")
    root, _ = patient.attribute(number, INDEX_ROOT)
    entry = root + 32 + struct.unpack_from("<H", patient_record(patient, number), root + 20)[0]
    patient.edit_record(
        number, lambda data: struct.pack_into("<Q", data, entry, 1 << 48 | 0xFFFFFFFF)
    )
    inner = folder(patient.node("folder/inner"))
    assert [name for name, _ in inner.entries()] == [b"text"]
    with pytest.raises(CorruptError, match="that \\$MFT maps"):
        inner.lookup(b"text").attributes()


def patient_record(patient: Patient, number: int) -> bytes:
    kept = bytearray()
    patient.edit_record(number, kept.extend)
    return bytes(kept)


@pytest.mark.parametrize("kind", [STANDARD_INFORMATION, DATA])
def test_a_file_that_lost_an_attribute_is_corrupt(patient: Patient, kind: int) -> None:
    number = patient.number("data")
    at, _ = patient.attribute(number, kind)
    patient.edit_record(number, lambda data: struct.pack_into("<I", data, at, 0x1000))
    with pytest.raises(CorruptError, match="found none"):
        patient.node("data").attributes()


@pytest.mark.parametrize("kind", [0x4000, 0x0002], ids=["encrypted", "otherwise compressed"])
def test_data_that_is_not_decoded_is_refused(patient: Patient, kind: int) -> None:
    number = patient.number("data")
    at, _ = patient.attribute(number, DATA)
    patient.edit_record(number, lambda data: struct.pack_into("<H", data, at + 12, kind))
    assert patient.node("data").attributes().size == 10_000
    with pytest.raises(UnsupportedError):
        content(patient.node("data"))


@pytest.mark.parametrize("number", range(4))
def test_the_mirror_serves_a_damaged_first_record(patient: Patient, number: int) -> None:
    place = patient.place(number)
    patient.content[place : place + patient.geometry.record_bytes] = bytes(
        patient.geometry.record_bytes
    )
    volume = patient.open()
    assert volume.label == "timefs \u00e4"
    assert content(walk(volume.root, [b"folder", b"inner", b"text"])) == b"plain text"


class Lossy(BytesImage):
    """A volume some of whose bytes the store has lost."""

    def __init__(self, content: bytes, lost: range) -> None:
        super().__init__(content)
        self.lost = lost

    def read_into(self, offset: int, buffer: memoryview) -> int:
        if offset < self.lost.stop and offset + len(buffer) > self.lost.start:
            raise DamagedError("pack 1: lost")
        return super().read_into(offset, buffer)


def test_a_record_is_served_though_its_neighbours_bytes_are_lost(patient: Patient) -> None:
    lost = patient.place(patient.number("many/name 07"))
    volume = open_volume(Lossy(bytes(patient.content), range(lost, lost + 1024)), b"")
    many = folder(volume.root.lookup(b"many"))
    for name, node in many.entries():
        if name == b"name 07":
            with pytest.raises(DamagedError, match="pack 1"):
                node.attributes()
        else:
            assert content(node) == b"%d" % int(name[5:])


def test_lost_bytes_of_an_index_are_never_an_absent_name(patient: Patient) -> None:
    lost = patient.blocks(patient.number("many"))[0]
    volume = open_volume(Lossy(bytes(patient.content), range(lost, lost + 4096)), b"")
    with pytest.raises(DamagedError, match="pack 1"):
        folder(volume.root.lookup(b"many")).lookup(b"absent")


def test_a_volume_whose_table_and_mirror_are_gone_is_corrupt(patient: Patient) -> None:
    for place in (patient.geometry.table_place, patient.geometry.mirror_place):
        patient.content[place : place + 1024] = bytes(1024)
    with pytest.raises(CorruptError, match="record 0"):
        patient.open()


def wreck_oem(data: bytearray) -> None:
    data[3:11] = b"\0" * 8


def wreck_sizes(data: bytearray) -> None:
    data[11:14] = b"\xff\xff\xff"


def wreck_table(data: bytearray) -> None:
    data[48:56] = (77).to_bytes(8, "little")


@pytest.mark.parametrize("wreck", [wreck_oem, wreck_sizes, wreck_table])
def test_the_backup_serves_a_damaged_boot_sector(
    patient: Patient, wreck: Callable[[bytearray], None]
) -> None:
    wreck(patient.content)
    assert content(patient.node("folder/inner/text")) == b"plain text"


def test_an_old_backup_alone_is_not_a_volume(patient: Patient) -> None:
    patient.content[:STRIDE] = bytes(STRIDE)
    with pytest.raises(UnsupportedError):
        patient.open()


def test_no_boot_sector_that_makes_sense_is_corrupt(patient: Patient) -> None:
    wreck_sizes(patient.content)
    patient.content[-STRIDE:] = bytes(STRIDE)
    with pytest.raises(CorruptError):
        patient.open()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4096, 65536])
def test_what_is_not_ntfs_is_unsupported(size: int) -> None:
    with pytest.raises(UnsupportedError, match="expected NTFS"):
        open_volume(BytesImage(b"\x5a" * size), b"")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_truncated_volume_gives_right_bytes_or_errors(small: bytes, part: float) -> None:
    whole, cut = Patient(small), small[: int(len(small) * part)]
    try:
        root = open_volume(BytesImage(cut), b"").root
    except CorruptError:
        return
    for name in (b"data", b"pieces"):
        try:
            got = content(root.lookup(name))
        except CorruptError:
            continue
        assert got == content(whole.node(name.decode()))


def test_a_damaged_chunk_of_a_system_compressed_file_hurts_no_other(patient: Patient) -> None:
    plain = content(patient.node("system"))
    assert len(plain) == 3 * 4096 + 1000
    assert max(plain[: 3 * 4096]) < 128
    place, _ = patient.runs_of(patient.number("system"))[-1]
    second = patient.content.find(bytes([0x77] * 64), place + 100)
    patient.content[second : second + 64] = bytes(64)  # no symbol has a code any more
    node = patient.node("system")
    assert isinstance(node, Leaf)
    image = node.open()
    assert image.read(0, 4096) == plain[:4096]
    with pytest.raises(CorruptError, match="bytes at 4096: XPRESS chunk"):
        image.read(4096, 1)
    assert image.read(8192, 6000) == plain[8192:]


def test_a_damaged_record_in_a_folder_of_many_leaves_the_others_whole(patient: Patient) -> None:
    for number in (3, 40):
        patient.content[patient.place(patient.number(f"many/name {number:02d}")) + 600] ^= 0xFF
        patient.content[patient.place(patient.number(f"many/name {number:02d}")) + 510] ^= 0xFF
    many = folder(patient.node("many"))
    read = corrupt = 0
    for name, node in many.entries():
        try:
            assert content(node) == b"%d" % int(name[-2:])
            read += 1
        except CorruptError:
            assert name in (b"name 03", b"name 40")
            corrupt += 1
    assert (read, corrupt) == (68, 2)
