"""The command itself, over a repository with a real disk: `timefs share`, `user`, `include`."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.share.sharing import (
    ADMINISTRATOR,
    PASSWORD,
    READER,
    ROOT,
    SECONDS,
    Share,
    check_tools,
    free_port,
    open_folder,
    sharing,
)
from timefs.share.settings import Settings
from timefs.share.view import Rights

pytestmark = [pytest.mark.system, pytest.mark.root]
TIMEFS = [sys.executable, "-m", "timefs.cli.main"]
TEXTS = {f"file-{n:03}.bin": random.Random(n).randbytes(n * 997) for n in range(40)}


class Site(NamedTuple):
    """A repository with one machine of two instants, and how its history is shared."""

    folder: Path
    settings: Settings

    def command(self, *words: str) -> list[str]:
        options = ["-r", str(self.folder / "repo"), "--config", str(self.folder / "timefs.toml")]
        return [*TIMEFS, *options, *words]

    def run(self, *words: str, said: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self.command(*words),
            input=said, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip


def tool(*command: str | Path) -> None:
    subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)


@pytest.fixture(scope="module")
def site() -> Generator[Site]:
    check_tools()
    missing = [name for name in ("mkntfs", "ntfscp") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    with open_folder() as folder:
        state, port = folder / "state", free_port()
        settings = Settings(
            ("127.0.0.1",), port, Rights.SHARE, (), (ADMINISTRATOR,), state, state / "mount"
        )
        (folder / "timefs.toml").write_text(
            f'repo = "{folder / "repo"}"\n[share]\nport = {port}\nacl = "share"\n'
            f'state = "{state}"\nadministrators = ["{ADMINISTRATOR}"]\n'
        )
        site = Site(folder, settings)
        disk, text = folder / "disk.img", folder / "text"
        with disk.open("wb") as file:
            file.truncate(16 << 20)
        tool("mkntfs", "-F", "-q", "-L", "Data", disk)
        assert site.run("init").returncode == 0
        for hour in (10, 11):
            for name, content in TEXTS.items():
                text.write_bytes(b"%d" % hour + content)
                tool("ntfscp", "-f", disk, text, name)
            at = f"2024-05-01T{hour}:00:00Z"
            assert site.run("capture", "vm1", str(disk), "--at", at).returncode == 0
        yield site


@pytest.fixture
def share(site: Site) -> Generator[Share]:
    with sharing(site.folder, site.command("share"), site.settings) as running:
        yield running


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_tree_copied_through_the_share_is_the_guests_at_each_time(share: Share, tmp_path: Path):
    for hour, share_and_folder in (
        (10, ("history", "vm1/2024-05-01T10-30/disk")),
        (11, ("vm1", "disk")),
    ):
        target = tmp_path / str(hour)
        target.mkdir()
        name, folder = share_and_folder
        said = share.run(name, f'cd "{folder}"; lcd {target}; prompt; recurse; mget *')
        assert "NT_STATUS" not in said, said
        truth = {
            name: hashlib.sha256(b"%d" % hour + content).hexdigest()
            for name, content in TEXTS.items()
        }
        assert digests(target) == truth


def test_the_guests_times_are_kept(share: Share):
    shown = (share.settings.mountpoint / "vm1/@live/disk/file-001.bin").stat()
    with share.tree("vm1") as connected:
        opened = connected.open(r"disk\file-001.bin")
        assert abs(opened.last_write_time.timestamp() - shown.st_mtime) < 1
        opened.close()


def test_status_says_that_it_is_well_and_then_that_it_is_not_running(site: Site):
    with sharing(site.folder, site.command("share"), site.settings) as share:
        done = site.run("--json", "status")
        assert done.returncode == 0, done.stderr
        machine, found = [json.loads(line) for line in done.stdout.splitlines()]
        assert machine == {"machine": "vm1", "latest": "2024-05-01T11:00:00.000000000Z"}
        assert found["share"]["well"] is True
        share.process.kill()
        share.process.wait(SECONDS)
        done = site.run("status")
        assert done.returncode == 3
        assert "its process is gone" in done.stderr
        with sharing(site.folder, site.command("share"), site.settings) as again:
            assert again.stop() == 0
    assert "share: not running" in site.run("status").stdout


def test_users_are_let_in_and_out_by_the_command(site: Site, share: Share):
    assert site.run("share", "user", READER, said="another word\n").returncode == 0
    assert "NT_STATUS_LOGON_FAILURE" in share.run("vm1", "ls")
    assert site.run("share", "user", READER, said=f"{PASSWORD}\n").returncode == 0
    assert "disk" in share.run("vm1", "ls")
    assert site.run("share", "user", READER, "--remove").returncode == 0
    assert "NT_STATUS_LOGON_FAILURE" in share.run("vm1", "ls")
    assert site.run("share", "user", READER, "--remove").returncode == 1
    unknown = site.run("share", "user", "no-such-user", said="x\n")
    assert unknown.returncode == 1
    assert "useradd" in unknown.stderr
    assert site.run("share", "user", READER, said="\n").returncode == 2


def test_the_private_folder_is_closed_and_the_mount_follows_the_rights(share: Share):
    state = share.settings.state
    assert (state / "private").stat().st_mode & 0o777 == 0o700
    for name in ("private/passdb.tdb", "mount/vm1/@live/disk.img"):
        done = subprocess.run(
            ["setpriv", f"--reuid={READER}", "--clear-groups", "cat", state / name],
            capture_output=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) == name.startswith("mount")  # here the share's rights hold


def test_an_smbd_of_the_operators_own_serves_the_shares_by_including_them(
    site: Site, tmp_path: Path
):
    """Here the operator's is the private one, with its shares replaced by what is printed."""
    included = site.run("share", "include")
    assert included.returncode == 0
    assert "[vm1]" in included.stdout
    assert "[global]" not in included.stdout
    command = site.command("share", "--mount-only")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("sharing on your smbd")
        listed = tmp_path / "smb.conf"
        listed.write_text("[global]\nserver role = standalone server\n" + included.stdout)
        done = subprocess.run(
            ["testparm", "-s", listed], capture_output=True, text=True, timeout=60, check=True
        )
        assert f"path = {site.settings.mountpoint}/vm1/@live" in done.stdout
        assert "found in service section" not in done.stderr
        assert (site.settings.mountpoint / "vm1/@live/disk/file-001.bin").exists()
        assert "share: well; served by your smbd\n" in site.run("status").stdout
        process.terminate()
        assert process.wait(SECONDS) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[share]\nadress = []", "unknown key adress"),
        ('[share]\naddress = "127.0.0.1"', "expected a list of strings"),
        ("[share]\nport = 0", "expected 1 to 65535"),
        ('[share]\nport = "445"', "expected int"),
        ('[share]\nacl = "all"', "expected guest or share"),
        ("share = 1", "expected a table"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(tmp_path: Path, text: str, said: str):
    config = tmp_path / "timefs.toml"
    config.write_text(text)
    done = subprocess.run(
        [*TIMEFS, "--config", config, "status"],
        cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert said in done.stderr
