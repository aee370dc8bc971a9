"""Asking the kernel to forget: it holds nodes while it has memory, and each takes some of ours.

Defined here and only here: `Pruning`. Used by the device server's workers, between requests.

What the kernel does not use it forgets and says so by FORGET; what is open or somebody's folder it
keeps. A kernel that cannot be told of nodes is told of their names, of files alone: it would take
even a folder that is used out of its tree.

Source: linux/include/uapi/linux/fuse.h, FUSE_NOTIFY_PRUNE (7.45) and FUSE_NOTIFY_INVAL_ENTRY.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from struct import pack
from typing import Final

from timefs.mount.fuse.protocol import (
    INVALIDATED_ENTRY,
    OUT_HEADER,
    PRUNE_MINOR,
    PRUNED,
    Notice,
)
from timefs.mount.handles import PRUNED_TOGETHER, Handle
from timefs.mount.memory import give_back

GIVEN_BACK_AFTER: Final = 8 * PRUNED_TOGETHER
"""Nodes pruned, before the memory that they took goes back to the system."""


class Pruning:
    """Of one mount. Thread-safe: two threads may count one batch for two, or for none."""

    def __init__(self) -> None:
        self.minor = 0
        """Of the protocol's version that was agreed on."""
        self._pruned = 0

    def prune(self, device: int, handles: Sequence[Handle]) -> None:
        """Ask the kernel to forget nodes."""
        notices = _of_nodes(handles) if self.minor >= PRUNE_MINOR else _of_names(handles)
        for notice, content in notices:
            header = OUT_HEADER.pack(OUT_HEADER.size + len(content), notice, 0)
            with suppress(OSError):  # it has forgotten already
                os.write(device, header + content)
        self._pruned += len(handles)
        if self._pruned >= GIVEN_BACK_AFTER:
            self._pruned = 0
            give_back()


def _of_nodes(handles: Sequence[Handle]) -> Iterator[tuple[Notice, bytes]]:
    node_ids = [handle.node_id for handle in handles]
    yield Notice.PRUNE, PRUNED.pack(len(node_ids)) + pack(f"={len(node_ids)}Q", *node_ids)


def _of_names(handles: Sequence[Handle]) -> Iterator[tuple[Notice, bytes]]:
    for handle in handles:
        if not handle.is_folder:
            name = handle.name
            content = INVALIDATED_ENTRY.pack(handle.parent_id, len(name)) + name + b"\0"
            yield Notice.INVALIDATE_ENTRY, content
