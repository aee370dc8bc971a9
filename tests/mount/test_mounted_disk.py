"""A real VHDX with a real NTFS in it, through a real mount: every name and byte."""

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.timetree.memory_history import MemoryHistory
from timefs.mount.mounting import mounted
from timefs.times import SECOND_NS
from timefs.timetree import TimeTree

TEN = 1_714_557_600 * SECOND_NS
TEXTS = {f"file-{n:03}.bin": random.Random(n).randbytes(n * 997) for n in range(60)}
TOOLS = ("mkntfs", "ntfscp", "qemu-img")
pytestmark = pytest.mark.system


def run(*command: "str | Path") -> None:
    subprocess.run(command, capture_output=True, timeout=60, check=True)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("disk")
    raw, vhdx, text = folder / "raw", folder / "disk.vhdx", folder / "text"
    with raw.open("wb") as file:
        file.truncate(32 << 20)
    run("mkntfs", "-F", "-q", "-L", "Data", raw)
    for name, content in TEXTS.items():
        text.write_bytes(content)
        run("ntfscp", "-f", raw, text, name)
    run("qemu-img", "convert", "-O", "vhdx", "-o", "subformat=dynamic", raw, vhdx)
    return folder


@pytest.fixture
def instant(disk: Path, tmp_path: Path) -> Generator[Path, None, None]:
    descriptor = os.open(disk / "disk.vhdx", os.O_RDONLY)
    history = MemoryHistory(TEN + SECOND_NS)
    files = {"disk.vhdx": DescriptorImage(descriptor), "cut.vhdx": b"vhdxfile" + bytes(100_000)}
    history.seal("vm1", TEN, {**files, "notes.txt": b"text"})
    try:
        with mounted(TimeTree(history).root, tmp_path):
            yield tmp_path / "vm1" / "latest"
    finally:
        os.close(descriptor)


def test_the_disk_its_content_and_every_guest_file_are_right(instant: Path, disk: Path):
    assert sorted(path.name for path in instant.iterdir()) == [
        *("cut", "cut.d", "cut.vhdx", "disk", "disk.d", "disk.vhdx", "notes.txt")
    ]
    for shown, truth in (("disk.vhdx", "disk.vhdx"), ("disk.raw", "raw")):
        with (instant / shown).open("rb") as file, (disk / truth).open("rb") as expected:
            digest = hashlib.file_digest(file, "sha256").digest()
            assert digest == hashlib.file_digest(expected, "sha256").digest()
    for name, content in TEXTS.items():
        assert (instant / "disk" / name).read_bytes() == content
    listed = {path.name for path in (instant / "disk").iterdir()}
    assert set(TEXTS) <= listed
    partition = instant / "disk.d" / "p0-Data"
    assert (partition / "file-059.bin").read_bytes() == TEXTS["file-059.bin"]
    assert (partition / "file-059.bin").stat().st_ino == (
        instant / "disk" / "file-059.bin"
    ).stat().st_ino


def test_a_truncated_disk_is_an_error_of_its_own_folder_alone(instant: Path):
    for call in (lambda: list((instant / "cut").iterdir()), (instant / "cut.raw").read_bytes):
        with pytest.raises(OSError, match="Input/output error"):
            call()
    assert (instant / "cut.vhdx").stat().st_size == 100_008


def test_copying_a_guest_file_and_walking_with_real_tools(instant: Path, tmp_path: Path):
    copy = tmp_path.parent / f"{tmp_path.name}-copy"
    run("cp", "-a", instant / "disk" / "file-059.bin", copy)
    assert copy.read_bytes() == TEXTS["file-059.bin"]
    copy.chmod(0o600)
    found = subprocess.run(
        ["find", instant / "disk", "-type", "f", "-name", "file-*"],
        capture_output=True,
        timeout=60,
        check=True,
        text=True,
    )
    assert len(found.stdout.splitlines()) == len(TEXTS)
