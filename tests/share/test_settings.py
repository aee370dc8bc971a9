"""What may stand in Samba's configuration: nothing that means something else there."""

import subprocess
from pathlib import Path

import pytest

from store.errors import UsageError
from tests.share.sharing import check_tools
from timefs.share.settings import Settings, private_configuration, sections, share_name
from timefs.share.view import Rights


def settings(
    addresses: tuple[str, ...] = ("127.0.0.1",),
    users: tuple[str, ...] = (),
    state: str = "/var/lib/timefs/share",
) -> Settings:
    folder = Path(state)
    return Settings(addresses, 445, Rights.GUEST, users, ("anna",), folder, folder / "mount")


@pytest.mark.parametrize("machine", ["vm1", "SQL-01", "a", "web.example.org", "two words"])
def test_machines_have_shares_of_their_name(machine: str):
    assert share_name(machine) == machine


@pytest.mark.parametrize(
    "machine",
    ["history", "Global", "homes", "printers", "IPC$", "a]b", "%m", "x\ny", " a", "a/b", ""],
)
def test_names_that_mean_something_to_samba_have_none(machine: str):
    assert share_name(machine) is None
    heads = [line for line in sections(settings(), [machine]).splitlines() if line[:1] == "["]
    assert heads == ["[history]"]


@pytest.mark.parametrize(
    "wrong",
    [
        settings(addresses=("any",)),
        settings(addresses=()),
        settings(users=('a"b',)),
        settings(users=("a\nadmin users = a",)),
        settings(state="/tmp/%u"),
        settings(state="/tmp/a\nb"),
    ],
)
def test_what_would_change_the_configuration_is_refused(wrong: Settings):
    with pytest.raises(UsageError, match="share"):
        wrong.check()


def test_it_answers_on_loopback_alone_unless_told_otherwise():
    assert "bind interfaces only = yes\n  interfaces = 127.0.0.1\n" in private_configuration(
        settings(), []
    )
    assert "bind interfaces only = no\n" in private_configuration(settings(("0.0.0.0",)), [])


def test_who_is_named_may_use_the_share_and_administrators_too():
    said = sections(settings(users=("bob", "@sales")), ["vm1"])
    assert said.count('valid users = "bob", "@sales", "anna"\n') == 2
    assert "valid users" not in sections(settings(), ["vm1"])


def test_samba_understands_every_line(tmp_path: Path):
    check_tools()
    place = settings(state=str(tmp_path / "state"))
    written = tmp_path / "smb.conf"
    written.write_text(private_configuration(place, ["vm1"]))
    for folder in ("lock", "state", "cache", "pid", "private"):
        (tmp_path / "state" / folder).mkdir(parents=True)
    done = subprocess.run(
        ["testparm", "-s", written], capture_output=True, text=True, timeout=60, check=True
    )
    assert "Unknown parameter" not in done.stderr
    assert "found in service section" not in done.stderr
    assert "server min protocol = SMB3_00" in done.stdout
    assert "server smb encrypt = required" in done.stdout
