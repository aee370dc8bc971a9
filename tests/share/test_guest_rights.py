"""Rights, attributes and streams of a real NTFS volume, enforced and shown by a real Samba."""

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.guest.ntfs.volume import mounted
from tests.share.serve_memory import EVERYONE, SOMEBODY_ELSE, descriptor
from tests.share.sharing import (
    ADMINISTRATOR,
    READER,
    SECONDS,
    Share,
    check_tools,
    free_port,
    open_folder,
    sharing,
)
from tests.share.test_share_command import Site
from timefs.share.settings import Settings
from timefs.share.view import Rights

pytestmark = [pytest.mark.system, pytest.mark.root]
ZONE = b"[ZoneTransfer]\r\nZoneId=3\r\n"
HIDDEN = 0x22


class Guest(NamedTuple):
    share: Share
    reader: bytes
    """The reader's own security identifier, as a domain would have it in the guest."""


def identifier_of(settings: Settings, user: str) -> bytes:
    """A user's security identifier, in bytes."""
    done = subprocess.run(
        ["pdbedit", f"--configfile={settings.configuration}", "-v", f"--user={user}"],
        capture_output=True, text=True, timeout=SECONDS, check=True,
    )  # fmt: skip
    found = re.search(r"User SID: +S-1-5-([0-9-]+)", done.stdout)
    assert found is not None
    parts = [int(part) for part in found[1].split("-")]
    return struct.pack(f"<BB6s{len(parts)}I", 1, len(parts), b"\0\0\0\0\0\x05", *parts)


def fill(disk: Path, reader: bytes) -> None:
    with disk.open("wb") as file:
        file.truncate(16 << 20)
    command = ["mkntfs", "-F", "-q", "-L", "Data", disk]
    subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
    with mounted(disk, "rw") as root:
        (root / "folder").mkdir()
        for name, who in (("all", EVERYONE), ("reader", reader), ("nobody", SOMEBODY_ELSE)):
            path = root / "folder" / f"{name}.txt"
            path.write_bytes(name.encode())
            os.setxattr(path, "system.ntfs_acl", descriptor(who))
        os.setxattr(root / "folder/all.txt", "user.Zone.Identifier", ZONE)
        os.setxattr(root / "folder/all.txt", "system.ntfs_attrib", struct.pack("<I", HIDDEN))
        (root / "big.bin").write_bytes(b"big")
        os.setxattr(root / "big.bin", "user.small", b"small")


@pytest.fixture(scope="module")
def guest() -> Generator[Guest]:
    check_tools()
    if shutil.which("mkntfs") is None or shutil.which("ntfs-3g") is None:
        pytest.skip("not installed: ntfs-3g")
    with open_folder() as folder:
        state, port = folder / "state", free_port()
        settings = Settings(("127.0.0.1",), port, Rights.GUEST, (), (), state, state / "mount")
        (folder / "timefs.toml").write_text(f'[share]\nport = {port}\nstate = "{state}"\n')
        site = Site(folder, settings)
        assert site.run("init").returncode == 0
        with sharing(folder, site.command("share"), settings) as share:
            reader = identifier_of(settings, READER)
            fill(folder / "disk.img", reader)
            assert site.run("capture", "vm1", str(folder / "disk.img")).returncode == 0
            assert share.until_listed("vm1")
            yield Guest(share, reader)


def test_who_has_the_guests_right_reads_and_nobody_else(guest: Guest, tmp_path: Path):
    share = guest.share
    for user in (READER, ADMINISTRATOR):
        assert share.read("vm1", "disk/folder/all.txt", tmp_path, user) == b"all"
        refused = share.run("vm1", f"get disk/folder/nobody.txt {tmp_path}/n", user)
        assert "NT_STATUS_ACCESS_DENIED" in refused
    assert share.read("vm1", "disk/folder/reader.txt", tmp_path, READER) == b"reader"
    refused = share.run("vm1", f"get disk/folder/reader.txt {tmp_path}/r", ADMINISTRATOR)
    assert "NT_STATUS_ACCESS_DENIED" in refused


def test_attributes_and_streams_are_those_of_the_volume(guest: Guest, tmp_path: Path):
    share = guest.share
    said = share.run("vm1", "allinfo disk/folder/all.txt")
    assert "attributes: HA (22)" in said
    assert f"stream: [:Zone.Identifier:$DATA], {len(ZONE)} bytes" in said
    assert share.read("vm1", "disk/folder/all.txt:Zone.Identifier", tmp_path) == ZONE


def test_nobody_at_all_reads_the_whole_disk_where_no_administrator_is_named(guest: Guest):
    for user in (READER, ADMINISTRATOR):
        for path in ("disk.img", "disk.raw", "disk.d/p0-Data/folder/nobody.txt"):
            assert "NT_STATUS_ACCESS_DENIED" in guest.share.run(
                "vm1", f"get {path} /dev/null", user
            )
