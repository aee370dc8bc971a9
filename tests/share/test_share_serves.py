"""What clients see of a share, by Samba's own client."""

import os
import re
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.share.serve_memory import HUGE_RUNS, ODD_NAMES
from tests.share.sharing import (
    ADMINISTRATOR,
    READER,
    Share,
    open_folder,
    sharing_memory,
    until_true,
)
from tests.share.wire import SMBResponseException
from timefs.share.names import to_windows
from timefs.share.view import Rights

pytestmark = [pytest.mark.system, pytest.mark.root]


@pytest.fixture(scope="module")
def share() -> Generator[Share]:
    with open_folder() as folder, sharing_memory(folder, Rights.SHARE) as running:
        yield running


@pytest.fixture(scope="module")
def guarded() -> Generator[Share]:
    with open_folder() as folder, sharing_memory(folder, Rights.GUEST) as running:
        yield running


def test_shares_are_listed_to_who_has_a_password_and_to_nobody_else(share: Share):
    said = share.run("x", "", READER)
    assert "NT_STATUS_BAD_NETWORK_NAME" in said
    listed = share.listed(READER)
    assert re.search(r"^\s+history +Disk", listed, re.MULTILINE)
    assert re.search(r"^\s+vm1 +Disk", listed, re.MULTILINE)
    assert "history" not in share.listed(None)


def test_nobody_gets_in_without_a_right_password(share: Share):
    assert "NT_STATUS_ACCESS_DENIED" in share.run("vm1", "ls", None)
    refused = share.run("vm1", "ls", "mail")  # a user of the server without a password of the share
    assert "NT_STATUS_LOGON_FAILURE" in refused


def test_old_protocols_are_refused(share: Share):
    for dialect in ("SMB2_10", "NT1"):
        said = share.client("vm1", "ls", READER, more=["-m", dialect])
        assert said.returncode != 0, said.stdout
        assert "disk" not in said.stdout


def test_times_are_listed_without_colons_and_open_in_every_spelling(share: Share, tmp_path: Path):
    assert share.names("history", "vm1") == [
        *("2024-05-01T10-00-00Z", "2024-05-01T10-01-00Z", "2024-05-01T10-02-00Z"),
        "latest",
    ]
    for spelling in ("2024-05-01T10-01", "2024-05-01T1001", "2024-05-01T10-01-37Z"):
        path = f"vm1/{spelling}/disk/docs/report.txt"
        assert share.read("history", path, tmp_path) == b"report of instant 1"


def test_every_name_is_shown_as_windows_takes_it_and_opens(share: Share, tmp_path: Path):
    listed = share.names("vm1", "disk/odd")
    assert len(listed) == len(ODD_NAMES)
    for name in (b"a:b", b"trailing dot.", b"trailing space ", b"CON", b"nul.txt", b"latin-\xe9"):
        shown = to_windows(name).decode()
        assert shown in listed
        assert share.read("vm1", f"disk/odd/{shown}", tmp_path) == name
    alike = {
        share.read("vm1", f"disk/odd/{name}", tmp_path) for name in listed if "ake" in name.lower()
    }
    assert alike == {b"Makefile", b"makefile", b"MAKEFILE"}


def test_names_are_found_whatever_their_case(share: Share, tmp_path: Path):
    assert share.read("vm1", "DISK/Docs/REPORT.txt", tmp_path) == b"report of instant 2"
    said = share.run("vm1", "get disk/docs/none.txt /dev/null")
    assert "NT_STATUS_OBJECT_NAME_NOT_FOUND" in said


def test_dos_attributes_creation_time_and_streams_are_the_guests(share: Share, tmp_path: Path):
    said = share.run("vm1", "allinfo disk/docs/report.txt")
    assert "attributes: HA (22)" in said
    assert "create_time:    Wed May  1 10:00:37 2024" in said
    assert "stream: [:Zone.Identifier:$DATA], 26 bytes" in said
    zone = share.read("vm1", "disk/docs/report.txt:Zone.Identifier", tmp_path)
    assert zone == b"[ZoneTransfer]\r\nZoneId=3\r\n"


def test_a_file_beyond_four_gib_reads_at_its_end(share: Share):
    assert re.search(r"huge +N 5368709120 ", share.run("vm1", "ls disk/huge"))
    with (share.settings.mountpoint / "vm1/@live/disk/huge").open("rb") as file:
        at, text = max(HUGE_RUNS.items())
        assert os.pread(file.fileno(), len(text), at) == text


def test_free_space_is_that_of_the_disk_that_holds_the_repository(share: Share):
    said = share.run("vm1", "ls")
    found = re.search(r"(\d+) blocks of size (\d+)\. (\d+) blocks available", said)
    assert found is not None
    blocks, size, free = map(int, found.groups())
    truth = os.statvfs(share.settings.state)
    assert blocks * size == pytest.approx(truth.f_blocks * truth.f_frsize, rel=0.01)
    assert free * size == pytest.approx(truth.f_bavail * truth.f_frsize, rel=0.05)


def test_nothing_can_be_written(share: Share, tmp_path: Path):
    (tmp_path / "new").write_bytes(b"new")
    for command in (f"put {tmp_path}/new new", "rm disk.img", "mkdir new", "rename disk.img other"):
        said = share.run("vm1", command, ADMINISTRATOR)
        assert re.search("NT_STATUS_(ACCESS_DENIED|MEDIA_WRITE_PROTECTED)", said), said


def test_links_devices_and_dots_lead_nowhere_out_of_a_volume(share: Share, tmp_path: Path):
    assert share.read("vm1", "disk/links/up", tmp_path) == b"report of instant 2"
    assert "NT_STATUS_ACCESS_DENIED" in share.run("vm1", "get disk/links/device /dev/null")
    assert share.read("vm1", "disk/links/device", tmp_path, ADMINISTRATOR) == b""
    for name in ("out", "root", "other"):
        copy = tmp_path / name
        said = share.run("vm1", f"get disk/links/{name} {copy}", ADMINISTRATOR)
        assert "NT_STATUS" in said
        assert not copy.exists()
    for path in ("../../../etc/passwd", "disk/../../../../../etc/passwd", "..\\..\\etc\\passwd"):
        copy = tmp_path / "passwd"
        said = share.run("vm1", f"get {path} {copy}", ADMINISTRATOR)
        assert not copy.exists(), said


def test_a_connected_client_sees_new_instants_and_new_machines(share: Share):
    report = r"disk\docs\report.txt"
    with share.tree("vm1") as connected:
        assert connected.read(report) == b"report of instant 2"
        share.process.send_signal(signal.SIGUSR1)
        assert until_true(lambda: connected.read(report) == b"report of instant 3")
    assert share.until_listed("vm2")
    with share.tree("vm2") as fresh:
        assert fresh.read("notes.txt") == b"a new machine"


def test_who_sends_in_clear_is_refused(share: Share):
    with share.tree("vm1") as connected:
        assert connected.names("disk")
        connected.stop_encrypting()
        with pytest.raises(SMBResponseException, match="STATUS_ACCESS_DENIED"):
            connected.names("disk")


def test_the_guests_rights_are_enforced(guarded: Share, tmp_path: Path):
    assert guarded.read("vm1", "disk/docs/report.txt", tmp_path) == b"report of instant 2"
    refused = guarded.run("vm1", f"get disk/docs/secret.txt {tmp_path}/secret")
    assert "NT_STATUS_ACCESS_DENIED" in refused
    secret = guarded.read("vm1", "disk/docs/secret.txt", tmp_path, ADMINISTRATOR)
    assert secret == b"for one alone"


def test_who_is_bound_by_the_guests_rights_cannot_read_the_disk_around_them(
    guarded: Share, tmp_path: Path
):
    for share, path in (("vm1", "disk.img"), ("history", "vm1/2024-05-01T10-00/disk.img")):
        refused = guarded.run(share, f"get {path} {tmp_path}/disk")
        assert "NT_STATUS_ACCESS_DENIED" in refused
        assert guarded.read(share, path, tmp_path, ADMINISTRATOR).startswith(b"FS:")


def test_of_a_linux_guests_rights_those_of_others_count(
    share: Share, guarded: Share, tmp_path: Path
):
    """The reader's number on this server is that of the files' owner in the guest."""
    for mode in ("600", "640"):
        assert "NT_STATUS_ACCESS_DENIED" in guarded.run("vm1", f"get disk/linux/{mode} /dev/null")
    for running, mode in ((guarded, "644"), (share, "600"), (share, "644")):
        assert running.read("vm1", f"disk/linux/{mode}", tmp_path) == b"of a linux guest"


def test_with_the_shares_rights_whoever_is_let_in_reads(share: Share, tmp_path: Path):
    assert share.read("vm1", "disk/docs/secret.txt", tmp_path) == b"for one alone"
    assert share.read("vm1", "disk.img", tmp_path).startswith(b"FS:")
