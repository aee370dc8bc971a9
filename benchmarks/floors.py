"""Floors: what deduplication and zstd 3 alone leave of the workload, without a byte of metadata.

Defined here and only here: `floors`. Pure computation over the workload's files; two threads.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import zstandard
from blake3 import blake3
from workload import BLOCK, GENERATIONS, Workload

LEVEL = 3
BATCH = 4 << 20
GRAINS = (4096, 16384, 65536)


class Floors(NamedTuple):
    """Bytes."""

    first: dict[int, int]
    """Of generation 0, by the size of the blocks that are deduplicated and compressed."""
    first_joined: int
    """Of generation 0, deduplicated by 4 KiB and compressed by 64 KiB of what is left."""
    generations: list[int]
    """Of each later generation's new 4 KiB blocks, as one stream."""
    nonzero: int
    unique: int
    """Bytes of generation 0's 4 KiB blocks that are not zero, and of those no two alike."""

    @property
    def total(self) -> int:
        """All generations, with the grain that suits generation 0 best."""
        return min(self.first.values()) + sum(self.generations)

    @property
    def total_joined(self) -> int:
        """All generations, as far as frames of 64 KiB over blocks of 4 KiB can go."""
        return self.first_joined + sum(self.generations)


def floors(workload: Workload) -> Floors:
    """Compute all floors."""
    first: dict[int, int] = {}
    seen: set[bytes] = set()
    joined = nonzero = unique = 0
    with ThreadPoolExecutor(2) as threads:
        for grain in GRAINS:
            known: set[bytes] = set()
            fresh = _fresh(_blocks(workload, grain), known, grain)
            first[grain] = sum(_mapped(threads, fresh, grain))
            if grain == BLOCK:
                seen, unique = known, len(known) * BLOCK
        nonzero = sum(len(blocks) for blocks in _blocks(workload, BLOCK)) * BLOCK
        fresh = _fresh(_blocks(workload, BLOCK), set(), BLOCK)
        joined = sum(_mapped(threads, fresh, GRAINS[-1]))
        streams = (
            b"".join(_fresh(_changed(workload, number), seen, BLOCK))
            for number in range(1, GENERATIONS + 1)
        )
        generations = [_size(stream, len(stream) or 1) for stream in streams]
    return Floors(first, joined, generations, nonzero, unique)


def _blocks(workload: Workload, grain: int) -> Iterator[list[bytes]]:
    """The blocks of generation 0 that are not zero, a batch at a time."""
    with workload.base.open("rb") as file:
        for at in range(0, workload.size, BATCH):
            content = os.pread(file.fileno(), BATCH, at)
            words = np.frombuffer(content, np.uint64).reshape(-1, grain // 8)
            numbers = np.flatnonzero(words.any(axis=1)).tolist()
            yield [content[number * grain : (number + 1) * grain] for number in numbers]


def _changed(workload: Workload, generation: int) -> Iterator[list[bytes]]:
    for _, content in workload.changes(generation):
        pieces = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
        yield [piece for piece in pieces if any(piece)]


def _fresh(batches: Iterable[list[bytes]], known: set[bytes], grain: int) -> Iterator[bytes]:
    """What is new of each batch, joined; `known` grows."""
    held: list[bytes] = []
    for batch in batches:
        for block in batch:
            digest = blake3(block).digest(length=16)
            if digest not in known:
                known.add(digest)
                held.append(block)
        if len(held) * grain >= BATCH:
            yield b"".join(held)
            held = []
    yield b"".join(held)


def _mapped(threads: ThreadPoolExecutor, parts: Iterator[bytes], grain: int) -> Iterator[int]:
    """Sizes on threads, few parts in memory at a time."""
    pending: deque[Future[int]] = deque()
    for part in parts:
        pending.append(threads.submit(_size, part, grain))
        if len(pending) > 4:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _size(content: bytes, grain: int) -> int:
    """Each `grain` bytes compressed alone, or as they are if that is less."""
    compressor = zstandard.ZstdCompressor(
        level=LEVEL, write_checksum=False, write_content_size=False
    )
    pieces = (content[at : at + grain] for at in range(0, len(content), grain))
    return sum(min(len(piece), len(compressor.compress(piece))) for piece in pieces)
