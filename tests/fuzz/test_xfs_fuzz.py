"""Whatever is damaged in an XFS volume, reading it ends in time, with declared errors only."""

import random
from pathlib import Path

import pytest

from store.image import Image
from tests.fuzz.parser import survive
from tests.guest.kernel import need, run
from timefs.guest.xfs import open_volume
from timefs.tree import Folder

pytestmark = [pytest.mark.system, pytest.mark.root]


def opener(image: Image) -> Folder:
    return open_volume(image, b"fuzz").root


def prototype(folder: Path) -> Path:
    """What mkfs.xfs shall put into a volume: files, folders and links."""
    chance = random.Random(1)
    content = folder / "content"
    content.write_bytes(chance.randbytes(9000))
    lines = ["/stage", "0 0", "d--755 0 0"]
    lines += [f"file-{number} ---644 0 0 {content}" for number in range(20)]
    lines += [f"link-{number} l--777 0 0 {'target' * number}" for number in (1, 30, 150)]
    lines += ["pipe p--600 1 2", "null c--666 0 0 1 3", "many d--755 5 6"]
    lines += [f"{'name' * 8}-{number} -ug755 0 0 {content}" for number in range(40)]
    lines += ["$", "$", ""]
    described = folder / "prototype"
    described.write_text("\n".join(lines))
    return described


@pytest.mark.timeout(0)  # as many cases as asked for, each with an alarm
@pytest.mark.parametrize("version", ["0", "1"])
def test_a_damaged_volume_gives_declared_errors_only(version: str, cases: int, tmp_path: Path):
    need("mkfs.xfs")
    volume = tmp_path / "volume"
    run(
        *("mkfs.xfs", "-q", "-m", f"crc={version}", "-p", prototype(tmp_path)),
        *("-d", f"name={volume},size=16m,file=1", "--unsupported"),
    )
    content = volume.read_bytes()
    survive(content, opener, range(cases // 2), tmp_path)
