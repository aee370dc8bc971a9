"""Previous Versions: what Explorer asks for, sent as Explorer sends it."""

from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.share.serve_memory import TEN
from tests.share.sharing import Share, open_folder, sharing_memory
from tests.share.wire import SMBResponseException
from timefs.share.view import Rights
from timefs.times import SECOND_NS

pytestmark = [pytest.mark.system, pytest.mark.root]
REPORT = r"disk\docs\report.txt"


def clock(hour: int, minute: int, second: int = 0) -> datetime:
    return datetime(2024, 5, 1, hour, minute, second, tzinfo=UTC)


@pytest.fixture(scope="module")
def share() -> Generator[Share]:
    with open_folder() as folder, sharing_memory(folder, Rights.GUEST) as running:
        yield running


def test_a_file_a_folder_and_a_disk_list_every_instant_newest_first(share: Share):
    assert datetime.fromtimestamp(TEN // SECOND_NS, UTC) == clock(10, 0)
    with share.tree("vm1") as connected:
        for path in (REPORT, r"disk\docs", "disk", ""):
            assert connected.versions(path) == [clock(10, 2), clock(10, 1), clock(10, 0)]


def test_each_version_has_its_own_bytes_never_the_newest(share: Share):
    with share.tree("vm1") as connected:
        read = [connected.read(REPORT, then) for then in connected.versions(REPORT)]
        assert read == [b"report of instant %d" % number for number in (2, 1, 0)]


def test_a_second_that_no_list_shows_opens_what_was_then(share: Share):
    with share.tree("vm1") as connected:
        assert connected.read(REPORT, clock(10, 0, 37)) == b"report of instant 0"
        assert connected.read(REPORT, clock(10, 1, 59)) == b"report of instant 1"
        assert connected.read(REPORT, clock(10, 30)) == b"report of instant 2"


def test_before_the_first_instant_and_in_the_future_there_is_nothing(share: Share):
    with share.tree("vm1") as connected:
        for then in (clock(9, 59, 59), clock(11, 30)):
            with pytest.raises(SMBResponseException, match=r"STATUS_OBJECT_(NAME|PATH)_NOT_FOUND"):
                connected.read(REPORT, then)


def test_a_folder_as_it_was_is_walked(share: Share):
    with share.tree("vm1") as connected:
        names = connected.names(r"disk\docs", clock(10, 0, 1))
    assert names == ["large.bin", "report.txt", "secret.txt"]


def test_the_guests_rights_hold_in_every_version(share: Share):
    secret = r"disk\docs\secret.txt"
    with share.tree("vm1") as connected:
        for then in (None, clock(10, 0), clock(10, 1, 30)):
            with pytest.raises(SMBResponseException, match="STATUS_ACCESS_DENIED"):
                connected.read(secret, then)
            with pytest.raises(SMBResponseException, match="STATUS_ACCESS_DENIED"):
                connected.read("disk.img", then)


def test_smbclient_lists_and_fetches_versions(share: Share, tmp_path: Path):
    said = share.run("vm1", "allinfo disk/docs/report.txt")
    assert said.count("@GMT-2024.05.01-10.0") == 3
    old = share.read("vm1", r"@GMT-2024.05.01-10.00.59\disk\docs\report.txt", tmp_path)
    assert old == b"report of instant 0"
