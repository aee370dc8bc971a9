"""How a QCOW2 may name what it stands on: what qemu-img follows we follow, or name and refuse."""

import json
import struct
from pathlib import Path

import pytest

from store.errors import CorruptError, UnsupportedError
from tests.fuzz.bounds import bounded_case
from tests.guest.disks.qemu import MIB, create, need, opened, run, truth
from timefs.guest.detect import decode, references

pytestmark = pytest.mark.system

FORMAT = 0xE2792ACA


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    need("qemu-img", "qemu-io")
    create(tmp_path / "base.qcow2", "qcow2", MIB)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", tmp_path / "base.qcow2")
    create(tmp_path / "top.qcow2", "qcow2", MIB)
    return tmp_path


def stand_on(folder: Path, name: str, named_format: str = "") -> None:
    """Gives top.qcow2 a backing file's name, whatever it is."""
    content = bytearray((folder / "top.qcow2").read_bytes())
    at = int.from_bytes(content[100:104], "big")
    extension = b""
    if named_format:
        extension = struct.pack(">II", FORMAT, len(named_format))
        extension += named_format.encode().ljust(-(-len(named_format) // 8) * 8, b"\0")
    content[at : at + len(extension) + 8] = extension + bytes(8)
    content[2048 : 2048 + len(name)] = name.encode()
    struct.pack_into(">QI", content, 8, 2048, len(name))
    (folder / "top.qcow2").write_bytes(content)


def options(**found: object) -> str:
    return "json:" + json.dumps({key.replace("_", "."): value for key, value in found.items()})


FILE = {"driver": "file", "filename": "base.qcow2"}


@pytest.mark.parametrize(
    ("name", "named_format"),
    [
        ("base.qcow2", ""),
        ("base.qcow2", "qcow2"),
        ("base.qcow2", "raw"),
        ("base.qcow2", "file"),
        ("./base.qcow2", ""),
        ("file:base.qcow2", "qcow2"),
        ("file://HERE/base.qcow2", ""),
        ("file:///HERE/base.qcow2", ""),
        ("HERE/base.qcow2", ""),
        (options(driver="qcow2", file=FILE), ""),
        (options(driver="qcow2", file=FILE), "raw"),
        (options(driver="qcow2", file_driver="file", file_filename="base.qcow2"), ""),
        (options(file_filename="base.qcow2", driver="qcow2"), ""),
        (options(file_filename="HERE/base.qcow2"), "qcow2"),
        (options(file={"filename": "base.qcow2"}), ""),
        (options(**FILE), ""),
        (options(driver="raw", file=FILE), ""),
        (options(driver="raw", file={"driver": "qcow2", "file": FILE}), ""),
        (options(driver="qcow2", file={**FILE, "locking": "off"}) + "  ", ""),
        (options(driver="qcow2", file=FILE, **{"read-only": True}), ""),
        (options(driver="qcow2", file=FILE).replace('"', "'"), ""),
    ],
)
def test_a_name_means_what_it_means_to_qemu(name: str, named_format: str, folder: Path):
    stand_on(folder, name.replace("HERE", str(folder)), named_format)
    with opened(folder) as files:
        assert references(files["top.qcow2"]) == ["base.qcow2"]
        disk = decode(files["top.qcow2"], files.find)
        assert disk.read(0, disk.size) == truth(folder / "top.qcow2", "qcow2")


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("nbd://localhost/base.qcow2", "'nbd' is not followed"),
        ("nbd:localhost:10809", "'nbd' is not followed"),
        ("https://example.org/base.qcow2", "'https' is not followed"),
        ("ba:se.qcow2", "'ba' is not followed"),
        ("JSON:{}", "'JSON' is not followed"),
        (options(driver="qcow2", file={"driver": "nbd", "host": "a"}), "driver 'nbd'"),
        (options(driver="qcow2", file="node1"), "option 'file'"),
        (options(driver="qcow2", file=FILE, backing=None), "option 'backing'"),
        (options(driver="raw", file=FILE, offset=512), "option 'offset'"),
        (options(driver="raw", file=FILE, size=512), "option 'size'"),
        (options(driver="qcow2", file={"driver": "vmdk", "file": FILE}), "qcow2 in vmdk"),
        (options(driver="qcow2"), "driver 'qcow2'"),
    ],
)
def test_what_is_no_file_of_the_machine_is_named_and_refused(name: str, named: str, folder: Path):
    stand_on(folder, name)
    with opened(folder) as files:
        with pytest.raises(UnsupportedError, match=named):
            decode(files["top.qcow2"], files.find)
        with pytest.raises(UnsupportedError, match=named):
            references(files["top.qcow2"])


@pytest.mark.parametrize(
    "name",
    [
        "json:",
        "json:[]",
        'json:{"file":',
        "json:" + "[" * 1000,
        "json:" + '{"a":' * 150,
        "json:7",
        options(file_filename=7),
        options(driver=[], file=FILE),
        'json:{"x":' + "9" * 900 + "}",
    ],
)
def test_options_that_are_damaged_are_an_error(name: str, folder: Path):
    stand_on(folder, name)
    content = (folder / "top.qcow2").read_bytes()
    with (
        opened(folder) as files,
        bounded_case(0, content, folder),
        pytest.raises((CorruptError, UnsupportedError), match="QCOW2 backing file"),
    ):
        decode(files["top.qcow2"], files.find)


def test_a_file_that_is_not_of_the_format_that_is_named_is_not_taken_for_a_raw_one(folder: Path):
    (folder / "base.qcow2").write_bytes(bytes(MIB))
    stand_on(folder, "base.qcow2", "qcow2")
    with opened(folder) as files, pytest.raises(CorruptError, match="expected 'qcow2', got a raw"):
        decode(files["top.qcow2"], files.find)
