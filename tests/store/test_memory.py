"""Memory is bounded by configuration and not by what the repository holds."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
from store.description import create_repository
from store.repository import Repository
from timefs.recorder import NamedSource, Order, record, silent
folder = Path(sys.argv[1])
create_repository(folder / "repo")
repository = Repository(folder / "repo", folder / "cache", frame_cache_bytes=8 << 20)
record(repository, Order("vm1", [NamedSource("disk", folder / "disk")]), silent())
instant = repository.history.latest("vm1")
(state,) = repository.history.files(instant)
image = repository.history.open(instant, state)
with (folder / "disk").open("rb") as source:
    for offset in range(0, state.size, 1 << 20):
        assert image.read(offset, 1 << 20) == source.read(1 << 20)
print(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
"""


def peak_kib(folder: Path, size_mib: int) -> int:
    """Peak memory of a process that captures a disk of that size and reads it all back.

    Not ru_maxrss, in which a program inherits the peak of the one that started it.
    """
    folder.mkdir()
    with (folder / "disk").open("wb") as disk:
        for _ in range(size_mib):
            disk.write(os.urandom(1 << 20))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
    )
    return int(done.stdout)


def test_capture_and_read_of_a_larger_disk_take_no_more_memory(tmp_path: Path, soak: bool):
    """Than the search for duplicates, which knows the digests of the newest 8 GiB, may have."""
    first = peak_kib(tmp_path / "first", 160)
    second = peak_kib(tmp_path / "second", 4096 if soak else 400)
    assert second < first + ((40 + (72 if soak else 0)) << 10)
    assert second < 300 << 10
