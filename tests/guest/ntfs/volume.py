"""NTFS volumes made by mkntfs and ntfs-3g from a seed, and ntfs-3g's view of a volume."""

import ctypes
import errno
import hashlib
import os
import random
import stat
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from store.errors import UnsupportedError
from store.image import DescriptorImage
from timefs.guest.ntfs import NtfsVolume, open_volume
from timefs.tree import Folder, Leaf, Link, descend

COMMAND_SECONDS = 60
HASHED_BYTES_MAX = 32 << 20
XATTR_BYTES_MAX = 64 << 10
LIBC = ctypes.CDLL(None, use_errno=True)
EPOCH_TICKS = 116_444_736_000_000_000
ODD_NAMES = (
    "COM1", "a:b", "back\\slash", "question?*", "trailing dot.", "trailing space ", "-dash",
    "new\nline", "\u00e4\u00f6\u00fc", "\u65e5\u672c\u8a9e", "\U0001f600", "lone\ud800",
    "\udc00lone", "x" * 255, "\u00df", "\u0130", "\ufb01", "Makefile", "makefile", "MAKEFILE",
    "..x", "...",
)  # fmt: skip


class Recipe(NamedTuple):
    """What to make; the same recipe gives the same names and contents."""

    cluster_bytes: int = 4096
    seed: int = 1
    size: int = 64 << 20
    big_folder_names: int = 1000
    files: int = 300
    sector_bytes: int = 512
    fragments: int = 800


@contextmanager
def mounted(image: Path, options: str, streams: str = "xattr") -> Generator[Path]:
    """The volume mounted by ntfs-3g, in the foreground so that the end is the end."""
    point = image.with_name(image.name + ".mounted")
    point.mkdir()
    command = ["ntfs-3g", "-o", f"{options},no_detach,streams_interface={streams}", image, point]
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=said, stderr=said) as process,
    ):
        try:
            for _ in range(COMMAND_SECONDS * 100):
                if point.is_mount():
                    break
                if process.poll() is not None:
                    said.seek(0)
                    raise RuntimeError(f"ntfs-3g: {said.read()!r}")
                time.sleep(0.01)
            yield point
        finally:
            if point.is_mount():
                subprocess.run(["umount", point], check=True, timeout=COMMAND_SECONDS)
            process.wait(COMMAND_SECONDS)
            point.rmdir()


def format_volume(image: Path, recipe: Recipe) -> None:
    """An empty volume."""
    with image.open("wb") as file:
        file.truncate(recipe.size)
    subprocess.run(
        ["mkntfs", "-F", "-Q", "-q", "-L", "timefs \u00e4", "-c", str(recipe.cluster_bytes),
         "-s", str(recipe.sector_bytes), "-p", "0", "-H", "255", "-S", "63", image],
        check=True, capture_output=True, timeout=COMMAND_SECONDS,
    )  # fmt: skip


def make_volume(image: Path, recipe: Recipe) -> None:
    """A volume with everything in it that the parser must get right."""
    format_volume(image, recipe)
    chance = random.Random(recipe.seed)
    with mounted(image, "rw,compression") as root:
        if recipe.fragments:
            _fragment(root, recipe, chance)
        _fill_folders(root, recipe, chance)
        _fill_names(root / "names", chance)
        _fill_links(root / "links")
        _fill_contents(root / "contents", recipe, chance)
        _set_times(root / "times")
        _add_streams(root / "streams", chance)
        _set_descriptors(root / "descriptors")
        _add_links(root / "reparse points")
        if recipe.cluster_bytes <= 4096:
            _fill_compressed(root / "compressed", recipe, chance)


def small_volume(path: Path) -> bytes:
    """4 MiB with a bit of everything: to be damaged, and to be read in no time."""
    recipe = Recipe(cluster_bytes=1024, size=4 << 20)
    format_volume(path, recipe)
    chance = random.Random(recipe.seed)
    with mounted(path, "rw,compression") as root:
        (root / "folder" / "inner").mkdir(parents=True)
        (root / "folder" / "inner" / "text").write_bytes(b"plain text")
        (root / "many").mkdir()
        for number in range(70):
            (root / "many" / f"name {number:02d}").write_bytes(b"%d" % number)
        (root / "data").write_bytes(chance.randbytes(10_000))
        (root / "link").hardlink_to(root / "data")
        os.setxattr(root / "data", "user.stream", chance.randbytes(3000))
        with (root / "pieces").open("wb") as file:
            for number in range(400):
                file.seek(number * 2048)
                file.write(chance.randbytes(1024))
        _set_times(root / "times")
        compressing(root / "packed")
        (root / "packed" / "text").write_bytes(words(chance, 60_000))
        _add_links(root / "reparse points")
        with (root / "system").open("wb") as file:
            file.truncate(WOF_BYTES)
        os.setxattr(root / "system", "user.WofCompressedData", wof_stream(chance))
        os.setxattr(root / "system", "system.ntfs_reparse_data", WOF_REPARSE)
        for number in range(60):
            os.setxattr(root / "many" / f"name {number:02d}", "system.ntfs_acl", descriptor(number))
        os.setxattr(root / "data", "system.ntfs_object_id", bytes(range(64)))
        os.setxattr(root / "folder", "system.ntfs_dos_name", b"FOLD~1")
    return path.read_bytes()


WOF_BYTES = 3 * 4096 + 1000
WOF_REPARSE = struct.pack("<IHHIIII", 0x80000017, 16, 0, 1, 2, 1, 0)


def wof_stream(chance: random.Random) -> bytes:
    """Three chunks of XPRESS and one stored, of values below 128: each a code of seven bits."""
    chunks: list[bytes] = []
    for _ in range(3):
        plain = bytes(chance.randrange(128) for _ in range(4096))
        bits = int("".join(f"{value:07b}" for value in plain), 2).to_bytes(3584, "big")
        swapped = bytearray(bits)
        swapped[::2], swapped[1::2] = bits[1::2], bits[::2]
        chunks.append(bytes([0x77] * 64 + [0] * 192) + bytes(swapped))
    chunks.append(chance.randbytes(1000))
    places = [sum(map(len, chunks[:number])) for number in (1, 2, 3)]
    return struct.pack("<III", *places) + b"".join(chunks)


def _fill_folders(root: Path, recipe: Recipe, chance: random.Random) -> None:
    big = root / "big"
    big.mkdir()
    for number in chance.sample(range(recipe.big_folder_names), recipe.big_folder_names):
        (big / f"{chance.choice('abXY')}name {number:06d}.dat").write_bytes(b"%d" % number)
    deep = root
    for level in range(30):
        deep /= f"level {level}"
    deep.mkdir(parents=True)
    (deep / "bottom").write_bytes(b"deep down")
    tree = root / "tree"
    for number in range(recipe.files):
        folder = tree / f"{number % 7}" / f"{number % 11}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"file {number}").write_bytes(chance.randbytes(chance.choice((9, 700, 5000))))
    for number in range(0, recipe.files, 3):  # records used again: new sequence numbers
        (tree / f"{number % 7}" / f"{number % 11}" / f"file {number}").unlink()
    for number in range(0, recipe.files, 6):
        (tree / f"again {number}").write_bytes(chance.randbytes(100))


def _fill_names(folder: Path, chance: random.Random) -> None:
    folder.mkdir()
    for name in ODD_NAMES:
        path = folder / os.fsdecode(name.encode("utf-8", "surrogatepass"))
        path.write_bytes(chance.randbytes(20))


def _fill_links(folder: Path) -> None:
    folder.mkdir()
    (folder / "other").mkdir()
    original = folder / "original"
    original.write_bytes(b"one file of many names")
    for number in range(42):
        (folder / ("." if number % 2 else "other") / f"link {'n' * number}").hardlink_to(original)


def _fill_contents(folder: Path, recipe: Recipe, chance: random.Random) -> None:
    folder.mkdir()
    cluster = recipe.cluster_bytes
    for size in (0, 1, 510, 600, 700, cluster - 1, cluster, cluster + 1, 3 * cluster + 17):
        (folder / f"{size} bytes").write_bytes(chance.randbytes(size))
    with (folder / "sparse").open("wb") as file:
        for place in (0, 40, 41, 300):
            file.seek(place * cluster)
            file.write(chance.randbytes(cluster))
        file.truncate(777 * cluster + 5)
    with (folder / "one hole").open("wb") as file:
        file.truncate(5 << 30)


def fill_many(root: Path, files: int, folder_names: int) -> None:
    """Very many small files: some in one folder, the others a thousand a folder."""
    (root / "one").mkdir()
    for number in range(folder_names):
        (root / "one" / f"name {number:06d}").write_bytes(b"%d" % number)
    for number in range(files - folder_names):
        folder = root / f"{number // 1000}"
        if number % 1000 == 0:
            folder.mkdir()
        (folder / f"file {number}").write_bytes(b"%d" % number)


def scatter(path: Path, runs: int, piece_bytes: int, chance: random.Random) -> None:
    """A file whose pieces lie on the volume in another order than in it, with holes between."""
    with path.open("wb", buffering=0) as file:
        file.truncate(2 * runs * piece_bytes)
        for number in chance.sample(range(runs), runs):
            file.seek(2 * number * piece_bytes)
            file.write(chance.randbytes(piece_bytes))


def words(chance: random.Random, size: int) -> bytes:
    """Text that compresses as text does."""
    known = [chance.randbytes(chance.randrange(1, 9)) for _ in range(50)]
    parts: list[bytes] = []
    length = 0
    while length < size:
        parts.append(chance.choice(known))
        length += len(parts[-1])
    return b"".join(parts)[:size]


def compressing(folder: Path) -> None:
    """A folder whose new files are compressed."""
    folder.mkdir()
    os.setxattr(folder, "system.ntfs_attrib", (0x800).to_bytes(4, "little"))


def _fill_compressed(folder: Path, recipe: Recipe, chance: random.Random) -> None:
    compressing(folder)
    cluster = recipe.cluster_bytes
    for size in (1, 700, 4095, 4096, 4097, 65535, 65536, 65537, 200_000):
        (folder / f"words {size}").write_bytes(words(chance, size))
    pieces = [bytes(40_000), chance.randbytes(40_000), words(chance, 40_000)]
    (folder / "mixed").write_bytes(b"".join(chance.choice(pieces) for _ in range(20)))
    (folder / "zeros").write_bytes(bytes(300_000))
    with (folder / "sparse").open("wb") as file:
        for place in (0, 40, 41, 300):
            file.seek(place * cluster)
            file.write(words(chance, cluster))
        file.truncate(777 * cluster + 5)
    with (folder / "changed").open("wb", buffering=0) as file:
        for number in range(60):
            file.write(words(chance, 40 * number))
        file.seek(30_000)
        file.write(words(chance, 5000))
        file.truncate(60_000)
        file.truncate(200_000)


def _fragment(root: Path, recipe: Recipe, chance: random.Random) -> None:
    """A file, and the volume's own table, in very many pieces.

    All free space is filled with small files, and half of them, by chance, go: what is written then
    must be spread over what they left.
    """
    piece = max(recipe.cluster_bytes, 1024)
    filler = root / "filler"
    free = os.statvfs(root)
    with filler.open("wb") as file:
        for _ in range((free.f_bavail * free.f_frsize - 3 * recipe.fragments * piece) >> 20):
            file.write(bytes(1 << 20))
    small = root / "small"
    small.mkdir()
    fragmented, rest = root / "fragmented", root / "rest"
    fragmented.touch()
    rest.touch()
    with suppress(OSError):  # until the volume is full
        for number in range(4 * recipe.fragments):
            (small / f"{number}").write_bytes(bytes(piece))
    with suppress(OSError), rest.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(piece))
    for number in chance.sample(range(recipe.fragments * 2), recipe.fragments):
        (small / f"{number}").unlink(missing_ok=True)
    with suppress(OSError), fragmented.open("wb", buffering=0) as file:
        for _ in range(recipe.fragments // 2):
            file.write(chance.randbytes(piece))
    with suppress(OSError):
        for number in range(recipe.fragments * 2):
            (small / f"after {number}").write_bytes(b"%d" % number)
    filler.unlink()
    rest.unlink()


def _set_times(folder: Path) -> None:
    folder.mkdir()
    for name, ticks in (
        ("100 ns", EPOCH_TICKS + 1_700_000_000_0000001),
        ("before 1970", EPOCH_TICKS - 5),
        ("1601", 0),
        ("1650", 12_345_678_901_234_567 // 8),
        ("2500", EPOCH_TICKS + 16_725_225_600_0000007),
    ):
        path = folder / name
        path.write_bytes(b"then")
        times = struct.pack("<QQQQ", ticks, ticks + 1, ticks + 2, ticks + 3)
        os.setxattr(path, "system.ntfs_times", times)


def _add_streams(folder: Path, chance: random.Random) -> None:
    folder.mkdir()
    for number in (0, 1, 62):
        path = folder / f"{number} streams"
        path.write_bytes(b"main")
        for stream in range(number):
            os.setxattr(path, f"user.stream {stream}", chance.randbytes(10 + 37 * stream))
    os.setxattr(folder, "user.of a folder", b"folders have them too")


def descriptor(rights: int) -> bytes:
    """A self-relative security descriptor that gives Administrators some rights."""
    administrators = bytes.fromhex("01020000000000052000000020020000")
    entry = struct.pack("<BBHI", 0, 0, 24, rights) + administrators
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(entry), 1, 0) + entry
    head = struct.pack("<BBHIIII", 1, 0, 0x8004, 20, 36, 0, 52)
    return head + administrators + administrators + acl


def _set_descriptors(folder: Path) -> None:
    """More descriptors than the root of their index holds; ids of objects too."""
    folder.mkdir()
    for number in range(300):
        path = folder / f"{number}"
        path.touch()
        os.setxattr(path, "system.ntfs_acl", descriptor(0x1F0000 + number))
        if number % 3 == 0:
            value = hashlib.sha512(b"%d" % number).digest()[: 64 if number % 2 else 16]
            os.setxattr(path, "system.ntfs_object_id", value)


def symlink(target: str, *, relative: bool) -> bytes:
    """The reparse point of a symbolic link as Windows makes it."""
    text = (target if relative else "\\??\\" + target).encode("utf-16-le")
    shown = target.encode("utf-16-le")
    names = struct.pack("<HHHHI", 0, len(text), len(text), len(shown), int(relative))
    data = names + text + shown
    return struct.pack("<IHH", 0xA000000C, len(data), 0) + data


def junction(target: str) -> bytes:
    """The reparse point of a junction as Windows makes it."""
    text, shown = ("\\??\\" + target).encode("utf-16-le"), target.encode("utf-16-le")
    names = struct.pack("<HHHH", 0, len(text), len(text) + 2, len(shown))
    data = names + text + b"\0\0" + shown + b"\0\0"
    return struct.pack("<IHH", 0xA0000003, len(data), 0) + data


def _add_links(folder: Path) -> None:
    (folder / "Target Folder" / "Inner").mkdir(parents=True)
    (folder / "Target Folder" / "Inner" / "File.txt").write_bytes(b"reached")
    for name, value in {
        "file": symlink("Target Folder\\Inner\\File.txt", relative=True),
        "other case": symlink("target folder\\INNER\\file.TXT", relative=True),
        "from root": symlink("\\reparse points\\Target Folder\\Inner\\File.txt", relative=True),
        "absolute": symlink("C:\\reparse points\\target folder\\inner\\file.txt", relative=False),
        "Target Folder/Inner/up": symlink("..\\..\\file", relative=True),
        "Target Folder/round": symlink("Inner\\..\\inner\\file.txt", relative=True),
    }.items():
        (folder / name).touch()
        os.setxattr(folder / name, "system.ntfs_reparse_data", value)
    for name, value in {
        "junction": junction("c:\\Reparse Points\\Target Folder"),
        "folder link": symlink("target folder", relative=True),
        "Target Folder/loop": junction("D:\\reparse points"),
    }.items():
        (folder / name).mkdir()
        os.setxattr(folder / name, "system.ntfs_reparse_data", value)


def digest_of(read: Callable[[int, int], bytes], size: int) -> str:
    """The SHA-256 of all bytes, or for huge files of both ends."""
    digest = hashlib.sha256()
    middle = range(HASHED_BYTES_MAX, size - HASHED_BYTES_MAX)
    at = 0
    while at < size:
        part = read(at, 1 << 20)
        digest.update(part)
        at += len(part)
        if at in middle:
            at = middle.stop
    return digest.hexdigest()


class Seen(NamedTuple):
    """What one view shows of one path. What is not there is None."""

    kind: str
    size: int
    allocated_bytes: int
    links: int
    digest: str
    target: str | None
    """From the volume's root."""
    xattrs: dict[bytes, bytes | None]


SYSTEM_XATTRS = (
    b"system.ntfs_attrib", b"system.ntfs_times", b"system.ntfs_acl", b"system.ntfs_reparse_data",
    b"system.ntfs_object_id", b"system.ntfs_dos_name",
)  # fmt: skip


def view_mounted(root: Path) -> dict[bytes, Seen]:
    """Everything below a mount of ntfs-3g."""
    seen: dict[bytes, Seen] = {}
    top = os.fsencode(root)
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            seen[(folder + b"/" + name)[len(top) + 1 :]] = _look(folder + b"/" + name, top)
    return seen


def _look(path: bytes, top: bytes) -> Seen:
    status = os.lstat(path)
    kind = {stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}.get(stat.S_IFMT(status.st_mode), "file")
    is_file = kind == "file"
    names = () if kind == "link" else tuple(os.fsencode(one) for one in os.listxattr(path))
    target = None
    if kind == "link":
        link = Path(os.fsdecode(path))
        target = os.path.relpath(link.parent / link.readlink(), os.fsdecode(top))
    with Path(os.fsdecode(path) if is_file else os.devnull).open("rb") as file:
        content = DescriptorImage(file.fileno())
        digest = digest_of(content.read, status.st_size if is_file else 0)
    return Seen(
        kind,
        status.st_size if is_file else 0,
        status.st_blocks * 512 if is_file else 0,
        status.st_nlink,
        digest,
        target,
        {one: _xattr(path, one) for one in (*names, *SYSTEM_XATTRS)},
    )


def _xattr(path: bytes, name: bytes) -> bytes | None:
    """Asked with room for all: ntfs-3g answers EIO, not ERANGE, to the small first try of os."""
    room = ctypes.create_string_buffer(XATTR_BYTES_MAX)
    size = LIBC.lgetxattr(path, name, room, XATTR_BYTES_MAX)
    if size >= 0:
        return room.raw[:size]
    if ctypes.get_errno() in (errno.ENODATA, errno.EMLINK):
        return None
    raise OSError(ctypes.get_errno(), f"{path!r}: {name!r}")


def view_parsed(root: Folder) -> dict[bytes, Seen]:
    """Everything below a folder as the project's own parser shows it."""
    seen: dict[bytes, Seen] = {}
    for path, node in descend(root):
        attributes = node.attributes()
        try:
            read = node.open().read if isinstance(node, Leaf) else nothing
            digest = digest_of(read, attributes.size if isinstance(node, Leaf) else 0)
        except UnsupportedError:
            digest = "unsupported"
        xattrs = node.xattrs()
        names = {*xattrs, *SYSTEM_XATTRS} if not isinstance(node, Link) else {*SYSTEM_XATTRS}
        seen[path] = Seen(
            "folder" if isinstance(node, Folder) else "link" if isinstance(node, Link) else "file",
            0 if isinstance(node, Link) else attributes.size,
            (attributes.allocated_bytes + 511) // 512 * 512,
            attributes.links,
            digest,
            target_of(path, node) if isinstance(node, Link) else None,
            {name: xattrs.get(name) for name in names},
        )
    return seen


def target_of(path: bytes, link: Link) -> str:
    """Where a link leads to, from the volume's root."""
    joined = b"/".join((path.rpartition(b"/")[0], link.target())).lstrip(b"/")
    return os.fsdecode(os.path.normpath(joined))


def difference(
    expected: dict[bytes, Seen], got: dict[bytes, Seen]
) -> list[tuple[bytes, str, object, object]]:
    """What differs: path, field, what was expected and what was found; not all of it."""
    found: list[tuple[bytes, str, object, object]] = []
    for path in sorted(expected.keys() | got.keys()):
        if path not in expected or path not in got:
            found.append((path, "there", path in expected, path in got))
        else:
            pairs = zip(Seen._fields, expected[path], got[path], strict=True)
            for field, one, other in pairs:
                if isinstance(one, dict) and isinstance(other, dict):
                    keys = sorted(one.keys() | other.keys())
                    found += [(path, str(key), one.get(key), other.get(key))
                              for key in keys if one.get(key) != other.get(key)]  # fmt: skip
                elif one != other:
                    found.append((path, field, one, other))
    return found[:5]


def nothing(offset: int, length: int) -> bytes:
    raise AssertionError(offset, length)


@contextmanager
def opened(path: Path) -> Generator[NtfsVolume]:
    """The volume opened by the project's own parser."""
    with path.open("rb") as file:
        yield open_volume(DescriptorImage(file.fileno()), b"volume")
