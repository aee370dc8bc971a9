"""Chunks that wimlib compressed: resources of a WIM file are what WofCompressedData streams are."""

import hashlib
import struct
import subprocess
from pathlib import Path

RESOURCE = struct.Struct("<QQQ")
BLOB = struct.Struct("<24sHI20s")
COMPRESSED = 4
SECONDS = 120


def compressed_chunks(folder: Path, kind: str, chunk_bytes: int) -> dict[str, bytes]:
    """For each file in a folder that wimlib compressed, its chunks with their table."""
    wim = folder.with_name(f"{folder.name}.{kind}{chunk_bytes}.wim")
    subprocess.run(
        ["wimlib-imagex", "capture", folder, wim, f"--compress={kind}:100",
         f"--chunk-size={chunk_bytes}"],
        check=True, capture_output=True, timeout=SECONDS,
    )  # fmt: skip
    data = wim.read_bytes()
    assert data[:8] == b"MSWIM\0\0\0"
    length, place, _ = RESOURCE.unpack_from(data, 48)
    blobs = data[place : place + (length & ((1 << 56) - 1))]
    stored: dict[bytes, bytes] = {}
    for resource, _, _, digest in BLOB.iter_unpack(blobs):
        length, place, _ = RESOURCE.unpack(resource)
        if length >> 56 & COMPRESSED:
            stored[digest] = data[place : place + (length & ((1 << 56) - 1))]
    return {
        path.name: stored[digest]
        for path in folder.iterdir()
        if (digest := hashlib.sha1(path.read_bytes()).digest()) in stored
    }


def samples(folder: Path) -> dict[str, bytes]:
    """Files of many kinds: text, programs, noise, long repeats, at odd sizes."""
    folder.mkdir()
    program = Path("/bin/bash").read_bytes()
    text = Path(__file__).read_bytes() * 40
    noise = hashlib.shake_256(b"noise").digest(100_000)
    files = {
        "text": text,
        "program": program[:700_001],
        "short": text[:100],
        "a chunk": text[:4096],
        "over a chunk": program[:32_769],
        "under a chunk": program[:32_767],
        "zeros": bytes(200_000),
        "period": b"abcdefg" * 30_000,
        "calls": b"".join(b"\xe8" + struct.pack("<i", at) for at in range(-9000, 90_000, 7)),
        "half noise": b"".join(
            noise[at : at + 5000] + text[:5000] for at in range(0, 90_000, 5000)
        ),
        "mostly noise": noise + bytes(5000),
        "few bytes": bytes(hashlib.shake_256(b"few").digest(60_000)).translate(
            bytes(value % 3 for value in range(256))
        ),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return files
