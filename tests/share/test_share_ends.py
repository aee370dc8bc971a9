"""The end of a share: asked for, or by the death of one of its parts; and the start after it."""

import os
import signal
from collections.abc import Callable, Generator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.share.sharing import READER, SECONDS, Share, open_folder, sharing_memory, until_true
from tests.share.wire import SMBException
from timefs.mount.fuse.mounting import detach
from timefs.mount.points import mount_at
from timefs.share.health import health
from timefs.share.samba import remove_user
from timefs.share.view import Rights

pytestmark = [pytest.mark.system, pytest.mark.root]


@pytest.fixture
def folder() -> Generator[Path]:
    with open_folder() as opened:
        yield opened


def processes_of(share: Share) -> list[int]:
    """Everything that runs with the share's own configuration."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(share.settings.configuration) in arguments:
            found.append(int(process.name))
    return found


def reading_fails(share: Share, end: Callable[[], None]) -> None:
    """A client has a file open, the end comes, and the client is told."""
    told = False
    with suppress(SMBException), share.tree("vm1") as connected:  # leaving is an error, too
        opened = connected.open("disk.img")
        assert opened.read(0, 4) == b"FS:r"
        end()
        with pytest.raises(SMBException):
            connected.read("disk.img")
        told = True
    assert told


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_all_of_it_with_clients_connected(
    folder: Path, number: signal.Signals, code: int
):
    with sharing_memory(folder, Rights.SHARE) as share:

        def end() -> None:
            assert share.listed(READER)  # Samba's helpers run, too
            assert share.stop(number) == code

        reading_fails(share, end)
        assert processes_of(share) == []
        assert mount_at(share.settings.mountpoint) is None
        assert health(share.settings) is None


def test_smbd_killed_is_an_error_here_and_at_the_client(folder: Path):
    with sharing_memory(folder, Rights.SHARE) as share:

        def end() -> None:
            for process in processes_of(share):
                os.kill(process, signal.SIGKILL)

        reading_fails(share, end)
        share.process.communicate(timeout=SECONDS)
        assert share.process.returncode == 1
        assert mount_at(share.settings.mountpoint) is None


def test_the_mount_killed_is_an_error_and_the_next_start_is_clean(folder: Path):
    with sharing_memory(folder, Rights.SHARE) as share:

        def end() -> None:
            share.process.kill()
            share.process.wait(SECONDS)

        reading_fails(share, end)
        seen = health(share.settings)
        assert seen is not None
        assert not seen.well
        with sharing_memory(folder, Rights.SHARE) as again:
            with again.tree("vm1") as connected:
                assert connected.read("disk.img").startswith(b"FS:")
            assert again.stop() == 0
            assert until_true(lambda: not processes_of(again))
            assert mount_at(again.settings.mountpoint) is None


def test_a_mount_taken_away_ends_the_share_with_an_error(folder: Path):
    with sharing_memory(folder, Rights.SHARE) as share:
        detach(share.settings.mountpoint, lazily=True)
        share.process.communicate(timeout=SECONDS)
        assert share.process.returncode == 1
        assert processes_of(share) == []


def test_two_shares_of_one_private_folder_are_refused(folder: Path):
    with sharing_memory(folder, Rights.SHARE) as share:
        state = health(share.settings)
        assert state is not None
        assert state.well
        with pytest.raises(AssertionError), sharing_memory(folder, Rights.SHARE):
            pass
        assert share.names("vm1", "disk")


def test_health_counts_clients(folder: Path):
    with sharing_memory(folder, Rights.SHARE) as share:
        with share.tree("vm1"), share.tree("history"):
            seen = health(share.settings)
        assert seen is not None
        assert seen.well
        assert seen.clients == 2


def test_file_ids_stay_over_a_new_start(folder: Path):
    seen: list[dict[str, int]] = []
    for _ in range(2):
        with sharing_memory(folder, Rights.SHARE) as share, share.tree("vm1") as connected:
            seen.append({name: connected.numbers("disk")[name] for name in ("docs", "odd", "huge")})
    assert seen[0] == seen[1]
    assert len(set(seen[0].values())) == 3


def test_a_users_password_can_be_taken_back(folder: Path):
    with sharing_memory(folder, Rights.SHARE) as share:
        assert share.names("vm1", "disk")
        remove_user(share.settings, READER)
        assert "NT_STATUS_LOGON_FAILURE" in share.run("vm1", "ls")
