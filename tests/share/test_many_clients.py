"""Many clients at once, each copying another time: no error, and nothing grows."""

import hashlib
import os
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.share.serve_memory import INSTANTS, REPORT_BYTES, report
from tests.share.sharing import Share, open_folder, sharing_memory, until_true
from timefs.share.health import health
from timefs.share.view import Rights

pytestmark = [pytest.mark.system, pytest.mark.root]
CLIENTS = 50
FIRST = datetime(2024, 5, 1, 10, tzinfo=UTC)
GROWTH_KIB_MAX = 64 << 10
SOAK_SECONDS = 120


@pytest.fixture
def share() -> Generator[Share]:
    with open_folder() as folder, sharing_memory(folder, Rights.SHARE) as running:
        yield running


def resident_kib(process: int) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(process)


def open_files(process: int) -> int:
    return len(os.listdir(f"/proc/{process}/fd"))  # noqa: PTH208


def clients(share: Share) -> int:
    seen = health(share.settings)
    assert seen is not None
    assert seen.well
    return seen.clients


def copies(share: Share, client: int, rounds: int, until: float) -> int:
    """How many versions one client copied, each proven; at least `rounds`, and until then."""
    done = 0
    with share.tree("vm1") as connected:
        while done < rounds or time.monotonic() < until:
            number = (client + done) % INSTANTS
            then = FIRST + timedelta(minutes=number, seconds=client)
            content = connected.read(r"disk\docs\large.bin", then)
            assert hashlib.sha256(content).digest() == hashlib.sha256(report(number)).digest()
            assert connected.names(r"disk\docs", then)
            done += 1
    return done


def test_fifty_clients_copy_different_instants(share: Share, soak: bool):
    process = share.process.pid
    copies(share, 0, INSTANTS, 0)
    before, files_before = resident_kib(process), open_files(process)
    until = time.monotonic() + SOAK_SECONDS if soak else 0
    with ThreadPoolExecutor(CLIENTS) as pool:
        started = [pool.submit(copies, share, client, 2, until) for client in range(CLIENTS)]
        done = [each.result() for each in started]
    assert min(done) >= 2
    assert len(report(0)) == REPORT_BYTES
    assert resident_kib(process) - before < GROWTH_KIB_MAX
    assert open_files(process) <= files_before + 2
    assert until_true(lambda: clients(share) == 0)
