"""The kernel as the oracle: volumes mounted on loop devices, and trees compared with them."""

import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from store.errors import TimefsError
from store.image import Image
from tests.loop_devices import need_loop_devices
from timefs.tree import Folder, Leaf, Link, Node

CHUNK_BYTES = 1 << 20
TOOL_SECONDS = 120
BROKEN = "<a listing that breaks>"


def run(*command: "str | Path", stdin: bytes | None = None) -> bytes:
    """A tool's output; its failure fails the test with what it said."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, timeout=TOOL_SECONDS, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr.decode(errors='replace')}"
    return done.stdout


def need(*tools: str, file_system: str | None = None) -> None:
    """Skips where a tool, root or the kernel's driver is missing."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if file_system is not None:
        if os.geteuid() != 0:
            pytest.skip("mounting on loop devices needs root")
        if f"\t{file_system}\n" not in Path("/proc/filesystems").read_text():
            pytest.skip(f"this kernel does not know {file_system}")


@contextmanager
def kernel_mount(image: Path, point: Path, options: str = "rw") -> Generator[Path]:
    """The volume in a file, mounted by the kernel; CalledProcessError if it refuses."""
    need_loop_devices()
    point.mkdir(exist_ok=True)
    device = run("losetup", "--find", "--show", image).decode().strip()
    try:
        mounting = ["mount", "-o", options, device, str(point)]
        subprocess.run(mounting, capture_output=True, timeout=TOOL_SECONDS, check=True)
        try:
            yield point
        finally:
            run("umount", point)
    finally:
        run("losetup", "--detach", device)


def digest_of(image: Image) -> str:
    digest = hashlib.sha256()
    for offset in range(0, image.size, CHUNK_BYTES):
        digest.update(image.read(offset, CHUNK_BYTES))
    return digest.hexdigest()


def shown(node: Node) -> dict[str, object]:
    """All that a program can see of a node."""
    seen = node.attributes()
    facts: dict[str, object] = {
        "mode": oct(seen.mode),
        "owner": (seen.owner, seen.group),
        "mtime": seen.mtime_ns,
        "atime": seen.atime_ns,
        "ctime": seen.ctime_ns,
        "xattrs": {
            name: value
            for name, value in sorted(dict(node.xattrs()).items())
            if not name.startswith(b"user.timefs.")
        },
    }
    if isinstance(node, Link):
        facts["target"] = node.target()
    elif isinstance(node, Leaf):
        facts |= {"size": seen.size, "allocated": seen.allocated_bytes}
        facts["content"] = digest_of(node.open())
    elif not isinstance(node, Folder):
        facts["device"] = seen.device
    if not isinstance(node, Folder):
        facts["links"] = seen.links
    return facts


def kernel_shown(path: Path, depth: int) -> dict[str, object]:
    """The same of a mounted volume's file, `depth` folders below its root."""
    seen = os.lstat(path)
    facts: dict[str, object] = {
        "mode": oct(seen.st_mode),
        "owner": (seen.st_uid, seen.st_gid),
        "mtime": seen.st_mtime_ns,
        "atime": seen.st_atime_ns,
        "ctime": seen.st_ctime_ns,
    }
    with suppress(OSError):  # not every file system has any
        names = sorted(os.listxattr(path, follow_symlinks=False))
        facts["xattrs"] = {
            os.fsencode(name): os.getxattr(path, name, follow_symlinks=False) for name in names
        }
    if stat.S_ISLNK(seen.st_mode):
        target = os.fsencode(path.readlink())
        if target.startswith(b"/"):
            target = b"../" * depth + target.lstrip(b"/")
        facts["target"] = target
    elif stat.S_ISREG(seen.st_mode):
        facts |= {"size": seen.st_size, "allocated": seen.st_blocks * 512}
        with path.open("rb") as file:
            facts["content"] = hashlib.file_digest(file, "sha256").hexdigest()
    elif not stat.S_ISDIR(seen.st_mode):
        facts["device"] = seen.st_rdev
    if not stat.S_ISDIR(seen.st_mode):
        facts["links"] = seen.st_nlink
    return facts


def kernel_walk(top: Path, depth: int = 0) -> Iterator[tuple[Path, int]]:
    """Every path below `top`, and how many folders lie between."""
    try:
        paths = sorted(top.iterdir())
    except OSError:
        yield top / BROKEN, depth
        return
    for path in paths:
        yield path, depth
        with suppress(OSError):
            if stat.S_ISDIR(path.lstat().st_mode):
                yield from kernel_walk(path, depth + 1)


def tree_walk(folder: Folder, below: bytes = b"") -> Iterator[tuple[bytes, Node]]:
    try:
        entries = sorted(folder.entries())
    except TimefsError:
        yield below + BROKEN.encode(), folder
        return
    for name, node in entries:
        path = below + name
        yield path, node
        if isinstance(node, Folder):
            try:
                node.attributes()
            except TimefsError:
                continue
            yield from tree_walk(node, path + b"/")


def differences(root: Folder, point: Path, ignored: frozenset[str] = frozenset()) -> list[str]:
    """What a tree shows otherwise than the kernel does; empty if nothing.

    Where the kernel gives an error, the tree must give one as well.
    """
    truth = {
        os.fsencode(path.relative_to(point)): (path, depth) for path, depth in kernel_walk(point)
    }
    found = dict(tree_walk(root))
    wrong = [f"{path!r}: not shown" for path in truth.keys() - found.keys()]
    wrong += [f"{path!r}: shown, but not there" for path in found.keys() - truth.keys()]
    for path in sorted(truth.keys() & found.keys()):
        if path.endswith(BROKEN.encode()):
            continue
        expected: dict[str, object] = {"error": True}
        got: dict[str, object] = {"error": True}
        with suppress(OSError):
            expected = kernel_shown(*truth[path])
        with suppress(TimefsError):
            got = shown(found[path])
        for key in (expected.keys() | got.keys()) - ignored:
            if expected.get(key) != got.get(key):
                wrong.append(f"{path!r}: {key}: expected {expected.get(key)}, got {got.get(key)}")
    return wrong


def lookup_agrees(root: Folder) -> None:
    """Every listed name is found by itself, and no other."""
    for _, node in tree_walk(root):
        if isinstance(node, Folder):
            for name, child in node.entries():
                assert node.lookup(name).identity == child.identity
            with suppress(TimefsError):
                node.lookup(b"no such name")
                raise AssertionError("found what is not there")


def leaves_are_made_again(root: Folder) -> None:
    """Every listed leaf is had again from its identity."""
    for _, node in tree_walk(root):
        if isinstance(node, Folder):
            for _, child in node.entries():
                if isinstance(child, Leaf):
                    again = node.leaf_again(child.identity)
                    assert again is not None
                    assert again.identity == child.identity
                    assert again.attributes() == child.attributes()
