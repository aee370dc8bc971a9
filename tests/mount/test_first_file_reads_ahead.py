"""A file opened the moment a mount appears kept the kernel's 128 KiB of read-ahead for good."""

from pathlib import Path

import pytest

from tests.timetree.memory_history import MemoryHistory
from timefs.mount.fuse.server import Server
from timefs.mount.mounting import READ_AHEAD_KIB, mounted
from timefs.mount.points import mount_at
from timefs.timetree import TimeTree


@pytest.mark.system
@pytest.mark.root
def test_the_kernel_reads_ahead_before_the_first_request_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seen: list[str] = []
    start = Server.start

    def looked_at(server: Server) -> None:
        mount = mount_at(tmp_path)
        assert mount is not None
        seen.append(Path(f"/sys/class/bdi/{mount.device}/read_ahead_kb").read_text())
        start(server)

    monkeypatch.setattr(Server, "start", looked_at)
    with mounted(TimeTree(MemoryHistory(0)).root, tmp_path):
        assert seen == [f"{READ_AHEAD_KIB}\n"]
