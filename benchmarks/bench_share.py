"""The share beside smbd serving the same files from ext4, in one run, by the same client.

Makes an NTFS volume with one large file, a folder of `--names` names and a tree of small files,
captures it twice, shares it, and copies by smbclient: medians of `--rounds` and the ratio. `first`
is a share just started, whose caches and the kernel's are empty; the rounds after it are `again`.
Beside the time the processor's is given, of smbd and mount together: it hardly depends on what else
runs.
Needs root, ntfs-3g, samba, smbclient.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from timefs.share.samba import Smbd, configure, make_folder, set_user
from timefs.share.settings import Settings, private_configuration, sections
from timefs.share.view import Rights

USER, PASSWORD = "daemon", "a password"
TIMEFS = [sys.executable, "-m", "timefs.cli.main"]
FOLDERS = 100
LISTED = "2024-05-01T11-30-{:02d}Z"
"""A second that was never opened before, one each round."""


class Cost(NamedTuple):
    """What a copy took."""

    seconds: float
    processor_seconds: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


def processor_seconds(settings: Settings, mount: int | None) -> float:
    """Of smbd with all its children that ended, and of the mount."""
    smbd = int((settings.state / "pid" / "smbd.pid").read_text())
    total = 0
    for process in filter(None, (smbd, mount)):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15] if process == smbd else fields[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


class Server(NamedTuple):
    """One of the two that are compared; `mount` is the process that serves ours."""

    settings: Settings
    mount: int | None

    def client(self, share: str, commands: str) -> Cost:
        """What smbclient takes, from login to leaving."""
        before = processor_seconds(self.settings, self.mount)
        seconds = client(self.settings, share, commands)
        time.sleep(0.3)  # until the server's child has ended and counts
        return Cost(seconds, processor_seconds(self.settings, self.mount) - before)


def client(settings: Settings, share: str, commands: str) -> float:
    """Seconds that smbclient takes."""
    login = ["-U", f"{USER}%{PASSWORD}", "-p", str(settings.port), "-m", "SMB3"]
    start = time.perf_counter()
    said = run("smbclient", *login, f"//127.0.0.1/{share}", "-c", commands)
    seconds = time.perf_counter() - start
    if "NT_STATUS" in said:
        sys.exit(said)
    return seconds


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=False)
    if done.returncode:
        sys.exit(f"{command[0]}: {done.stderr or done.stdout}")
    return done.stdout


def fill(folder: Path, files: int, large_bytes: int, count: int) -> None:
    """What is copied; half of each file's bytes can be compressed."""
    chance = random.Random(1)

    def content(size: int) -> bytes:
        return chance.randbytes(size // 2) + bytes([chance.randrange(256)]) * (size - size // 2)

    with (folder / "large.bin").open("wb") as large:
        for _ in range(large_bytes >> 20):
            large.write(content(1 << 20))
    names = folder / "names"
    names.mkdir()
    for number in range(count):
        (names / f"Document {number:05}.txt").write_bytes(content(100))
    for number in range(files):
        place = folder / "tree" / f"{number % FOLDERS:02}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"file {number:05}.dat").write_bytes(content(chance.randrange(500, 8000)))


def make_disk(disk: Path, files: Path) -> None:
    used = int(run("du", "-sk", files).split()[0])
    with disk.open("wb") as image:
        image.truncate((used * 2 + (64 << 10)) << 10)
    run("mkntfs", "-F", "-Q", "-q", "-L", "Data", disk)
    point = disk.with_suffix(".mounted")
    point.mkdir()
    run("ntfs-3g", "-o", "big_writes", disk, point)
    try:
        run("cp", "-a", *sorted(files.iterdir()), point)
    finally:
        run("umount", point)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def settings_at(state: Path, rights: str) -> Settings:
    users: tuple[str, ...] = ()
    port = free_port()
    return Settings(("127.0.0.1",), port, Rights(rights), users, (), state, state / "mount")


@contextmanager
def shared(work: Path, rights: str) -> Generator[Server]:
    """Our share, in a process of its own."""
    settings = settings_at(work / "ours", rights)
    options = [f"--state={settings.state}", f"--port={settings.port}", f"--acl={rights}"]
    command = [*TIMEFS, "-r", str(work / "repo"), "share", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("sharing")
        set_user(settings, USER, PASSWORD)
        yield Server(settings, process.pid)
        process.send_signal(signal.SIGTERM)


@contextmanager
def served(work: Path, files: Path, rights: str) -> Generator[Server]:
    """The files from ext4, by an smbd configured alike."""
    settings = settings_at(work / "peer", rights)
    make_folder(settings)
    head, _, shares = private_configuration(settings, ["vm1"]).partition("[history]")
    _, _, machine = shares.partition("[vm1]")
    plain = "".join(line for line in machine.splitlines(True) if "shadow:" not in line)
    plain = plain.replace("shadow_copy2 ", "").replace(
        f"{settings.mountpoint}/vm1/@live", str(files)
    )
    assert str(files) in plain, sections(settings, ["vm1"])
    configure(settings, f"{head}[vm1]{plain}")
    set_user(settings, USER, PASSWORD)
    smbd = Smbd(settings)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", settings.port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield Server(settings, None)
    finally:
        smbd.stop()


def measures(server: Server, work: Path, base: str) -> dict[str, Cost]:
    """What each kind of use costs, less the login."""
    target = work / "target"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    prefix = f'cd "{base}"; ' if base else ""
    uses = {
        "large file": "get large.bin /dev/null",
        "a folder of names": "cd names; ls",
        "small files": f"cd tree; lcd {target}; prompt; recurse; mget *",
    }
    login = server.client("vm1", "quit")
    return {what: server.client("vm1", prefix + use) - login for what, use in uses.items()}


def unopened(server: Server, round_number: int) -> Cost:
    second = LISTED.format(round_number)
    login = server.client("history", "quit")
    return server.client("history", f'cd "vm1/{second}/disk/names"; ls') - login


def build(work: Path, files: int, large_bytes: int, names: int) -> Path:
    source = work / "files"
    source.mkdir()
    fill(source, files, large_bytes, names)
    disk = work / "disk.img"
    make_disk(disk, source)
    repo = [*TIMEFS, "-r", str(work / "repo")]
    run(*repo, "init")
    for hour in (10, 11):
        run(*repo, "capture", "vm1", disk, "--at", f"2024-05-01T{hour}:00:00Z")
    return source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=10_000, help="small files of the tree")
    parser.add_argument("--names", type=int, default=1000, help="of the folder that is listed")
    parser.add_argument("--megabytes", type=int, default=256, help="of the large file")
    parser.add_argument("--acl", choices=["guest", "share"], default="share")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name).resolve()
        work.chmod(0o755)
        os.environ["XDG_CACHE_HOME"] = str(work / "cache")
        source = build(work, arguments.files, arguments.megabytes << 20, arguments.names)
        ours: list[dict[str, Cost]] = []
        peers: list[dict[str, Cost]] = []
        with (
            shared(work, arguments.acl) as share,
            served(work, source, arguments.acl) as peer,
        ):
            for round_number in range(arguments.rounds + 1):
                fresh = {"its names, never opened": unopened(share, round_number)}
                ours.append({**measures(share, work, "disk"), **fresh})
                peers.append(measures(peer, work, ""))
    for what in ours[0]:
        theirs = [each[what] for each in peers[1:] if what in each]
        show(what, [each[what] for each in ours], theirs)


def show(what: str, ours: list[Cost], theirs: list[Cost]) -> None:
    """One line: ours when just started and later, the peer's, and how many times as fast we are."""
    first, again = ours[0], middle(ours[1:])
    line = f"{what:31} first {first.seconds:6.2f} s ({first.processor_seconds:5.2f} cpu)"
    line += f"  again {again.seconds:6.2f} s ({again.processor_seconds:5.2f} cpu)"
    if theirs:
        peer = middle(theirs)
        line += f"  ext4 {peer.seconds:6.2f} s ({peer.processor_seconds:5.2f} cpu)  ratio"
        line += f" {peer.seconds / first.seconds:.2f}, {peer.seconds / again.seconds:.2f}"
        line += f" (cpu {peer.processor_seconds / max(again.processor_seconds, 0.01):.2f})"
    print(line)


def middle(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(values) for values in zip(*costs, strict=True)))


if __name__ == "__main__":
    main()
