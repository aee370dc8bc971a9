"""A real virtual disk for the demo: GPT and NTFS in a VHDX, filled from this system, then changed.

Run by demo/run: `disk.py FOLDER GENERATION`. Generation 0 makes FOLDER/disk.vhdx; each further one
changes the volume as a guest would and writes the changed clusters into the VHDX in place. The
volume is filled through ntfs-3g, which Debian lets every user mount on a file of their own. Seeded:
the same system gives the same disk.
"""

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

DISK_BYTES = 640 << 20
PARTITION_OFFSET = 1 << 20
PARTITION_BYTES = DISK_BYTES - (2 << 20)
FILES = 3000
FILES_BYTES = 160 << 20
PAGE_BYTES = 8192
PAGES = 8192
CHANGED_PAGES = 80
GRAIN_BYTES = 64 << 10


def run(*command: str | Path) -> None:
    """A tool, quietly; its words only when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        sys.exit(f"demo: {command[0]}: {done.stderr.strip() or done.stdout.strip()}")


def system_files() -> Iterator[Path]:
    """Small regular files that every Debian has, in a fixed order."""
    for root, folders, names in os.walk("/usr"):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file() and not path.is_symlink() and path.stat().st_size < 256 << 10:
                yield path


def page(seed: int) -> bytes:
    """A database-like page: half of it compressible."""
    source = random.Random(seed)
    return source.randbytes(PAGE_BYTES // 2) + (b"row %08d " % seed).ljust(16) * (PAGE_BYTES // 32)


def fill(volume: Path) -> None:
    """What generation 0 holds."""
    count = total = 0
    for count, path in enumerate(system_files(), 1):
        target = volume / "Data" / path.relative_to("/usr")
        target.parent.mkdir(parents=True, exist_ok=True)
        total += target.write_bytes(path.read_bytes())
        if count == FILES or total > FILES_BYTES:
            break
    print(f"  {count} files of this system, {total >> 20} MiB")
    print(f"  sql/database.mdf, {PAGES * PAGE_BYTES >> 20} MiB", flush=True)
    (volume / "sql").mkdir()
    with (volume / "sql" / "database.mdf").open("wb") as database:
        for number in range(PAGES):
            database.write(page(number))
    (volume / "docs").mkdir()


def change(volume: Path, generation: int) -> None:
    """What happens in a generation."""
    source = random.Random(generation)
    report = f"Report, generation {generation}\n" * (100 + generation)
    (volume / "docs" / "report.txt").write_text(report)
    with (volume / "sql" / "database.mdf").open("r+b") as database:
        for number in source.sample(range(PAGES), CHANGED_PAGES):
            database.seek(number * PAGE_BYTES)
            database.write(page(generation * PAGES + number))
    folder = volume / "docs" / f"week-{generation}"
    folder.mkdir()
    for number in range(20):
        (folder / f"letter-{number}.txt").write_text(f"Dear {source.random()}\n" * 200)


def note_sums(volume: Path, target: Path) -> None:
    """What the guest's files are now, in the form that `sha256sum -c` reads."""
    with target.open("w") as sums:
        for name in ("docs/report.txt", "sql/database.mdf"):
            with (volume / name).open("rb") as file:
                sums.write(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n")


def in_volume(folder: Path, generation: int) -> None:
    """Mount the partition's file, change it, unmount."""
    mounted = folder / "volume"
    mounted.mkdir(exist_ok=True)
    options = "big_writes,noatime,no_detach"
    server = subprocess.Popen(
        ["ntfs-3g", "-o", options, folder / "partition.raw", mounted],
        start_new_session=True,  # Ctrl-C is for us, who then unmount
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not mounted.is_mount():
            if server.poll() is not None:
                said = server.communicate()[1].strip()
                sys.exit(f"demo: ntfs-3g: {said}")
            time.sleep(0.01)
        if generation == 0:
            fill(mounted)
        change(mounted, generation)
        note_sums(mounted, folder / f"sums.{generation}")
    finally:
        if server.poll() is None:
            run("umount", mounted)
        server.communicate(timeout=60)  # only then is all of it in the file


def write_changes(folder: Path) -> None:
    """Bring the VHDX up to date: only what differs from the partition's last state."""
    commands: list[str] = []
    new, old = folder / "partition.raw", folder / "partition.last"
    with new.open("rb") as now, old.open("rb") as before:
        for at in range(0, PARTITION_BYTES, GRAIN_BYTES):
            content = now.read(GRAIN_BYTES)
            if content != before.read(GRAIN_BYTES):
                piece = folder / f"piece-{at}"
                piece.write_bytes(content)
                commands.append(f"write -s {piece} {PARTITION_OFFSET + at} {len(content)}")
    script = "\n".join([*commands, "quit", ""])
    done = subprocess.run(
        ["qemu-io", "-f", "vhdx", folder / "disk.vhdx"],
        input=script,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode or "rror" in done.stdout + done.stderr:
        sys.exit(f"demo: qemu-io: {done.stdout}{done.stderr}")
    for piece in folder.glob("piece-*"):
        piece.unlink()


def make_disk(folder: Path) -> None:
    """GPT around the partition, as a dynamic VHDX."""
    disk = folder / "disk.raw"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    run("/sbin/sgdisk", "-o", "-n", f"1:2048:+{PARTITION_BYTES >> 10}K", "-t", "1:0700", disk)
    run(
        *("dd", f"if={folder / 'partition.raw'}", f"of={disk}", "bs=1M", "conv=notrunc,sparse"),
        f"seek={PARTITION_OFFSET >> 20}",
    )
    run(
        *("qemu-img", "convert", "-O", "vhdx", "-o", "subformat=dynamic"),
        *(disk, folder / "disk.vhdx"),
    )
    disk.unlink()


def build(folder: Path, generation: int) -> None:
    """Make the disk or take it one generation further."""
    partition = folder / "partition.raw"
    if generation == 0:
        with partition.open("wb") as file:
            file.truncate(PARTITION_BYTES)
        run("/sbin/mkntfs", "-F", "-Q", "-L", "Data", "-p", "2048", partition)
    else:
        run("cp", "--sparse=always", partition, folder / "partition.last")
    in_volume(folder, generation)
    if generation == 0:
        make_disk(folder)
    else:
        write_changes(folder)


if __name__ == "__main__":
    target, step = sys.argv[1:]
    try:
        build(Path(target).resolve(), int(step))
    except KeyboardInterrupt:
        sys.exit(130)
