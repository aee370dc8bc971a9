"""The portable adapter, through mfusepy, or another binding, and the libfuse that is here."""

import subprocess
import sys
from contextlib import AbstractContextManager
from importlib import util
from pathlib import Path

import pytest

from store.errors import UnsupportedError
from tests.mount.conformance import FileSystemConformance
from tests.timetree.memory_tree import MemoryFile, MemoryFolder
from timefs.mount import portable
from timefs.mount.points import mount_at
from timefs.mount.portable import mounted_portably
from timefs.tree import Folder


def need_binding() -> None:
    """Any of those that the adapter takes will do."""
    if not any(util.find_spec(name.partition(".")[0]) for name in portable.BINDINGS):
        pytest.skip("not installed: mfusepy, fusepy or refuse")


class TestPortable(FileSystemConformance):
    tells_holes = False
    knows_open_files_without_names = False

    @classmethod
    def show(cls, root: Folder, mountpoint: Path) -> AbstractContextManager[object]:
        need_binding()
        return mounted_portably(root, mountpoint)


@pytest.mark.system
def test_it_mounts_at_a_folder_of_any_name(tmp_path: Path):
    need_binding()
    point = tmp_path / "häuser 家"
    point.mkdir()
    with mounted_portably(MemoryFolder(b"root", {b"a": MemoryFile(b"a", b"one")}), point):
        assert (point / "a").read_bytes() == b"one"
    assert mount_at(point) is None


@pytest.mark.system
def test_a_signal_ends_it_and_leaves_no_mount(tmp_path: Path):
    need_binding()
    point = tmp_path.resolve() / "mount"
    (tmp_path / "repository").mkdir()
    point.mkdir()
    paths = [str(point), str(tmp_path / "repository"), str(tmp_path / "log")]
    command = [sys.executable, "-m", "tests.mount.serve_memory", "portable", "small", *paths]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert (point / "vm1/latest/disk.bin").read_bytes() == b"one"
        process.terminate()
        assert process.wait(30) == 0
    assert mount_at(point) is None


def test_without_a_binding_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(portable, "BINDINGS", ("no_such_binding",))
    with (
        pytest.raises(UnsupportedError, match="pip install mfusepy"),
        mounted_portably(MemoryFolder(b"root", {}), tmp_path),
    ):
        pass
