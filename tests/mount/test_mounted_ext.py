"""An ext4 disk through a real mount: owners, devices, links, attributes, holes; and no way out."""

import os
import stat
from collections.abc import Generator
from pathlib import Path

import pytest

from store.image import DescriptorImage
from tests.guest.ext.crash import crashed
from tests.guest.ext.volume import populated
from tests.guest.kernel import kernel_mount, kernel_walk, need
from tests.timetree.memory_history import MemoryHistory
from timefs.mount.mounting import mounted
from timefs.times import SECOND_NS
from timefs.timetree import TimeTree

TEN = 1_714_557_600 * SECOND_NS
pytestmark = [pytest.mark.system, pytest.mark.root]


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("mke2fs", file_system="ext4")
    folder = tmp_path_factory.mktemp("ext")
    populated(folder / "volume", folder / "point", "-t ext4 -b 4096 -I 256", "rw")
    with kernel_mount(folder / "volume", folder / "point") as top:
        lair = top / "one" / "two" / "three"
        lair.mkdir(parents=True)
        (lair / "up").symlink_to("../../..")  # to the volume's root, three folders above
        (lair / "out").symlink_to("up/../../../../../etc/shadow")
        (lair / "far").symlink_to("../../../../../../../../../../etc/shadow")
        (lair / "secret").symlink_to("/etc/shadow")
    return folder / "volume"


@pytest.fixture
def instant(volume: Path, tmp_path: Path) -> Generator[Path, None, None]:
    descriptor = os.open(volume, os.O_RDONLY)
    history = MemoryHistory(TEN + SECOND_NS)
    history.seal("vm1", TEN, {"disk.img": DescriptorImage(descriptor)})
    point = tmp_path / "mount"
    point.mkdir()
    try:
        with mounted(TimeTree(history).root, point):
            yield point / "vm1" / "latest"
    finally:
        os.close(descriptor)


def facts(path: Path) -> tuple[object, ...]:
    seen = path.lstat()
    kind = stat.S_IFMT(seen.st_mode)
    common = (oct(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_mtime_ns, seen.st_rdev)
    if stat.S_ISREG(kind):
        names = sorted(os.listxattr(path))
        xattrs = [(name, os.getxattr(path, name)) for name in names]
        return *common, seen.st_size, seen.st_blocks, path.read_bytes(), xattrs
    return common


def test_a_mounted_disk_shows_what_the_kernel_shows(instant: Path, volume: Path, tmp_path: Path):
    with kernel_mount(volume, tmp_path / "point", "ro") as point:
        paths = [path.relative_to(point) for path, _ in kernel_walk(point)]
        assert len(paths) > 1000
        wrong = [path for path in paths if facts(instant / "disk" / path) != facts(point / path)]
        assert wrong == []
        sparse = point / "sparse"
        for path in (sparse, instant / "disk" / "sparse"):
            with path.open("rb") as file:
                assert os.lseek(file.fileno(), 400_000, os.SEEK_DATA) == 5 << 20
                assert os.lseek(file.fileno(), 5 << 20, os.SEEK_HOLE) == (5 << 20) + 4096


def test_links_lead_into_the_volume_and_never_out_of_it(instant: Path):
    lair = instant / "disk" / "one" / "two" / "three"
    root = instant / "disk"
    assert (lair / "up").resolve() == root.resolve()
    for name in ("secret", "far", "out"):
        assert (lair / name).readlink() == Path("../../../etc/shadow")
        with pytest.raises(FileNotFoundError):  # not this machine's
            (lair / name).read_bytes()
    inner = root / "links" / "inner"
    assert (inner / "absolute").read_bytes() == (root / "size-1").read_bytes()


def test_the_state_of_the_journal_is_shown(instant: Path, tmp_path: Path):
    state = "user.timefs.volume_state"
    assert os.getxattr(instant / "disk", state) == b"clean"
    crashed(tmp_path / "crashed", tmp_path / "point", "4k", 103)
    descriptor = os.open(tmp_path / "crashed", os.O_RDONLY)
    history = MemoryHistory(TEN + SECOND_NS)
    history.seal("vm1", TEN, {"disk.img": DescriptorImage(descriptor)})
    with mounted(TimeTree(history).root, tmp_path / "point"):
        disk = tmp_path / "point" / "vm1" / "latest" / "disk"
        assert os.getxattr(disk, state).startswith(b"journal replayed: ")
        assert state in os.listxattr(disk)
        partition = disk.with_name("disk.d") / "p0-Data"
        assert os.getxattr(partition, state).startswith(b"journal replayed: ")
    os.close(descriptor)
