"""Whatever was on a disk before, what was written last is shown, and what is left is named.

Everything that can be made here is written over a whole disk, then a table; and the other way
round. The tools that write wipe nothing that they need not. What is left on the disk says wipefs.
"""

import json
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.guest.disks import raid_writer
from tests.guest.disks.lvm_tools import Tools, loop_devices
from tests.guest.disks.qemu import MIB, need, opened, run
from tests.guest.disks.shown import partitions_of, volume_of

pytestmark = pytest.mark.system
DISK_BYTES = 320 * MIB
PARTITION_AT = MIB

Maker = Callable[[Path], None]


def tool(*command: str) -> Maker:
    def make(path: Path) -> None:
        need(command[0])
        run(*command, path)

    return make


@cache
def luks_header() -> bytes:
    """As QEMU makes it, which takes seconds."""
    with TemporaryDirectory() as folder:
        header = Path(folder) / "luks"
        run(
            *("qemu-img", "create", "-q", "--object", "secret,id=s,data=x", "-f", "luks"),
            *("-o", "key-secret=s,iter-time=10,hash-alg=sha512", header, "1M"),
        )
        return header.read_bytes()[: MIB // 2]


def luks(path: Path) -> None:
    need("qemu-img")
    with path.open("r+b") as file:
        file.write(luks_header())


def physical_volume(path: Path) -> None:
    need("pvcreate", "losetup")
    with loop_devices(path) as devices:
        Tools(devices)("pvcreate", "-y", "-ff", *devices)


def array(version: str) -> Maker:
    return lambda path: raid_writer.write(version, path)


MAKERS: dict[str, tuple[Maker, str, str]] = {
    "ext4": (tool("mkfs.ext4", "-q", "-F"), "ext2/3/4", "ext4"),
    "ext2-1k": (tool("mkfs.ext2", "-q", "-F", "-b", "1024"), "ext2/3/4", "ext2"),
    "xfs": (tool("mkfs.xfs", "-q", "-f"), "XFS", "xfs"),
    "ntfs": (tool("mkntfs", "-q", "-F", "-Q", "-p", "0"), "NTFS", "ntfs"),
    "fat16": (tool("mkfs.fat", "-F", "16", "-s", "16", "-I"), "FAT", "vfat"),
    "fat32": (tool("mkfs.fat", "-F", "32", "-I"), "FAT", "vfat"),
    "exfat": (tool("mkfs.exfat"), "exFAT", "exfat"),
    "swap": (tool("mkswap", "-q", "-f"), "swap", "swap"),
    "minix": (tool("mkfs.minix", "-3"), "MINIX", "minix"),
    "luks": (luks, "LUKS", "crypto_LUKS"),
    "lvm": (physical_volume, "LVM2", "LVM2_member"),
    **{
        f"md-{version}": (array(version), f"md {version}", "linux_raid_member")
        for version in raid_writer.VERSIONS
    },
}
"""How it is made, what we call it, and what wipefs does."""

BOOTING = ("ntfs", "fat16", "fat32", "exfat")
"""Their boot sectors end like an MBR."""

OPENED = ("ext4", "ext2-1k", "xfs", "ntfs", "fat16", "fat32", "exfat")


def marks(path: Path) -> set[str]:
    """The types that are to be wiped from a disk for it to be blank."""
    need("wipefs")
    told = run("wipefs", "-J", path)
    return {mark["type"] for mark in json.loads(told)["signatures"]} if told else set()


def table(path: Path, label: str) -> None:
    """A table with one partition for it; the partition's bytes stay as they are."""
    need("sfdisk")
    script = f"label: {label}\nstart=2048, size={DISK_BYTES // 512 - 4096}\n"
    done = subprocess.run(
        ["sfdisk", "-q", "--no-reread", "--wipe", "never", "--wipe-partitions", "never", path],
        input=script.encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def volume(path: Path) -> None:
    """A FAT volume with one file in the partition."""
    need("mkfs.fat", "mcopy")
    fat = path.with_name("fat")
    with fat.open("wb") as file:
        file.truncate(8 * MIB)
    run("mkfs.fat", "-n", "NEW", fat)
    (path.parent / "new.txt").write_text("new")
    run("mcopy", "-i", fat, path.parent / "new.txt", "::NEW.TXT")
    with path.open("r+b") as file:
        file.seek(PARTITION_AT)
        file.write(fat.read_bytes())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(DISK_BYTES)
    return path


@pytest.mark.parametrize("formatted", [True, False], ids=["formatted", "unformatted"])
@pytest.mark.parametrize("label", ["dos", "gpt"])
@pytest.mark.parametrize("old", MAKERS)
def test_a_table_over_it_is_shown_and_what_is_left_of_it_is_named(
    old: str, label: str, formatted: bool, path: Path
):
    make, name, mark = MAKERS[old]
    make(path)
    table(path, label)
    if formatted:
        volume(path)
    left = mark in marks(path)
    with opened(path.parent) as files:
        shown = partitions_of(files["disk"])
        named = " ".join(text for key, text in shown.items() if key.startswith("p0"))
        if label == "dos" and old in BOOTING and not formatted:
            # Nothing proves the table, and the volume still opens: blkid too takes it for that.
            assert "MBR of 1 partition" in named
            return
        first = [key for key in shown if not key.startswith("p0")]
        assert first == (["p1-NEW"] if formatted else ["p1.unsupported"])
        assert name in named or not left, (shown, marks(path))
        alone = formatted and "Linux software RAID" not in named
        assert ("NEW.TXT" in volume_of(files["disk"])) == alone


@pytest.mark.parametrize("label", ["dos", "gpt"])
@pytest.mark.parametrize("new", [name for name in MAKERS if not name.startswith("md")])
def test_what_is_made_over_a_table_is_shown_and_what_is_left_of_the_table_is_named(
    new: str, label: str, path: Path
):
    make, name, _ = MAKERS[new]
    table(path, label)
    volume(path)
    make(path)
    with opened(path.parent) as files:
        shown = partitions_of(files["disk"])
        assert not any(key.startswith("p1") for key in shown)
        if new in OPENED:
            assert "p0" in shown
        else:
            assert name in shown["p0.unsupported"]
        assert any("GPT" in key for key in shown) == ("gpt" in marks(path))


@pytest.mark.parametrize("label", ["dos", "gpt"])
@pytest.mark.parametrize("version", raid_writer.VERSIONS)
def test_an_array_made_over_a_table_is_named_beside_the_partitions_in_both_folders(
    version: str, label: str, path: Path
):
    table(path, label)
    volume(path)
    raid_writer.write(version, path)
    if "linux_raid_member" not in marks(path):
        return  # it lies where a partition is
    with opened(path.parent) as files:
        for shown in (partitions_of(files["disk"]), volume_of(files["disk"])):
            assert any(f"md {version}" in text for text in shown.values()), shown


@pytest.mark.parametrize("version", raid_writer.VERSIONS)
@pytest.mark.parametrize("old", OPENED)
def test_a_member_of_an_array_shows_no_older_file_system(old: str, version: str, path: Path):
    MAKERS[old][0](path)
    raid_writer.write(version, path)
    assert "linux_raid_member" in marks(path)
    with opened(path.parent) as files:
        assert list(partitions_of(files["disk"])) == ["p0.unsupported"]
        assert f"md {version}" in partitions_of(files["disk"])["p0.unsupported"]
