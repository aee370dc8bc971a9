"""Real images, captured by the program and shown by the real mount: every byte and guest file.

With `--images DIR`: images that other programs made, packed by gzip, with sums in DIR/README.md.
Without: images made here by mkntfs and qemu-img, every container on every partition table.
"""

import gzip
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.guest_disk import GuestDisk, sha256, tool
from tests.cli.program import Place
from tests.guest.ntfs.volume import mounted

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("fuse")]

PARTITION = slice(128 * 512, (128 + 14336) * 512)
"""Where the NTFS volume lies on each of the small disks that Windows made."""

CONTAINERS = {
    "raw.img": ("raw", ""),
    "fixed.vhd": ("vpc", "subformat=fixed,force_size=on"),
    "dynamic.vhd": ("vpc", "subformat=dynamic,force_size=on"),
    "fixed2.vhdx": ("vhdx", "subformat=fixed"),
    "dynamic2.vhdx": ("vhdx", "subformat=dynamic"),
}


class Known(NamedTuple):
    """What the page beside the images says of one."""

    file_sha256: str
    disk_bytes: int | None
    disk_sha256: str | None


@contextmanager
def history(place: Place) -> Generator[Path]:
    """The newest instant of vm1, mounted."""
    point = place.folder / "history"
    point.mkdir()
    place.run("-r", "repo", "mount", point)
    try:
        yield point / "vm1" / "latest"
    finally:
        place.run("unmount", point)


def sums_below(folder: Path) -> dict[str, str]:
    """sha256 of every regular file below a folder, by path."""
    files = [Path(top, name) for top, _, names in os.walk(folder) for name in names]
    return {
        str(path.relative_to(folder)): sha256(path)
        for path in files
        if path.is_file() and not path.is_symlink()
    }


def folders_below(folder: Path) -> set[str]:
    """Every folder below a folder, by path."""
    return {str(Path(top).relative_to(folder)) for top, _, _ in os.walk(folder)}


@pytest.fixture(scope="session")
def known(images_dir: Path) -> dict[str, Known]:
    """What is known of every image, by its unpacked name."""
    page = (images_dir / "README.md").read_text()
    files = re.findall(r"^\| (\S+)\.gz \|.*\| (\d+) \| ([0-9a-f]{64}) \|$", page, re.MULTILINE)
    disks = {
        name: (int(size), digest)
        for name, size, digest in re.findall(
            r"^\| (\S+) \| (\d+) \| ([0-9a-f]{64})\b", page, re.MULTILINE
        )
    }
    return {name: Known(digest, *disks.get(name, (None, None))) for name, _, digest in files}


def image_names(metafunc: pytest.Metafunc) -> list[str]:
    folder = metafunc.config.getoption("--images")
    return sorted(path.stem for path in Path(folder).glob("*.gz")) if folder else ["none"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "image_name" in metafunc.fixturenames:
        metafunc.parametrize("image_name", image_names(metafunc))


def test_an_image_is_shown_as_it_is_and_decoded(
    tmp_path: Path, images_dir: Path, known: dict[str, Known], image_name: str
):
    place, image = Place(tmp_path), tmp_path / image_name
    with gzip.open(images_dir / f"{image_name}.gz") as packed, image.open("wb") as target:
        shutil.copyfileobj(packed, target, 4 << 20)
    expected = known[image_name]
    assert sha256(image) == expected.file_sha256, "the image given is the one that is meant"
    place.run("-r", "repo", "init")
    place.run("-r", "repo", "capture", "vm1", image)
    with history(place) as instant:
        assert sha256(instant / image_name) == expected.file_sha256
        if image.suffix in (".vhd", ".vhdx"):
            raw = instant / f"{image.stem}.raw"
            assert raw.stat().st_size == expected.disk_bytes
            assert sha256(raw) == expected.disk_sha256
        volume = ntfs_volume(image)
        if volume is None:
            return
        with mounted(volume, "ro") as root:
            truth, folders = sums_below(root), folders_below(root)
        assert truth or image_name != "ntfs.bin", "the small disks are empty"
        assert sums_below(instant / image.stem) == truth
        assert folders_below(instant / image.stem) == folders
    place.run("-r", "repo", "check", "--deep")


def ntfs_volume(image: Path) -> Path | None:
    """A copy of the NTFS volume in an image, if that is known to have one."""
    volume = image.with_name("volume")
    if image.name == "ntfs.bin":
        return Path(shutil.copy(image, volume))
    if image.name not in ("fixed.vhd", "dynamic.vhd", "fixed.vhdx", "dynamic.vhdx"):
        return None
    form = "vpc" if image.suffix == ".vhd" else "vhdx"
    raw = image.with_name("decoded")
    subprocess.run(
        [tool("qemu-img"), "convert", "-f", form, "-O", "raw", image, raw], check=True, timeout=60
    )
    volume.write_bytes(raw.read_bytes()[PARTITION])
    return volume


@pytest.mark.parametrize("scheme", ["gpt", "mbr"])
def test_every_container_on_every_partition_table(tmp_path: Path, scheme: str):
    disk, place = GuestDisk(tmp_path, scheme), Place(tmp_path)
    disk.work(1)
    with disk.volume() as volume:
        fill(volume)
    for name, (form, options) in CONTAINERS.items():
        command = [*disk.convert(form, options), tmp_path / name]
        subprocess.run(command, check=True, timeout=120)
    place.run("-r", "repo", "init")
    place.run("-r", "repo", "capture", "vm1", *(tmp_path / name for name in CONTAINERS))
    content = sha256(disk.raw)
    with history(place) as instant:
        for name in CONTAINERS:
            stem = Path(name).stem
            assert sha256(instant / name) == sha256(tmp_path / name), name
            assert sha256(instant / f"{stem}.raw") == content, name
            assert sums_below(instant / stem) == disk.sums, name
            assert sums_below(instant / f"{stem}.d" / "p1-Data") == disk.sums, name
    place.run("-r", "repo", "check", "--deep")


def fill(volume: Path) -> None:
    """Names, sizes and shapes that a file system has to think about."""
    for number in range(300):
        (volume / "docs" / f"a rather long name number {number}.txt").write_text(f"{number}\n")
    (volume / "Ünïcode ☃").mkdir()
    (volume / "Ünïcode ☃" / "𝄞.bin").write_bytes(bytes(range(256)) * 33)
    (volume / "empty").touch()
    with (volume / "sparse").open("wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
    deep = volume.joinpath(*"abcdefghij")
    deep.mkdir(parents=True)
    (deep / "resident").write_bytes(hashlib.sha256(b"deep").digest())
