"""Another reader of NTFS, in a process of its own: python second_opinion.py VOLUME.

Prints a JSON object: for each path the SHA-256 of its content and its security descriptor, empty
where it finds none. Its listings are complete only where clusters are not larger than index blocks.
"""

import hashlib
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

READ_BYTES = 1 << 20
SECONDS = 120
UNREAD = "not read"
"""The digest of what it fails to read."""


def second_opinion(volume: Path) -> dict[str, tuple[str, str]]:
    """What the other reader says of every path in a volume: digest, descriptor (hexadecimal)."""
    done = subprocess.run(
        [sys.executable, __file__, volume], capture_output=True, check=True, timeout=SECONDS
    )
    found: dict[str, tuple[str, str]] = json.loads(done.stdout)
    return found


def _collect(folder: Any, prefix: str, found: dict[str, tuple[str, str]]) -> None:
    for number in range(folder.number_of_sub_file_entries):
        entry = folder.get_sub_file_entry(number)
        if entry.file_reference & ((1 << 48) - 1) < 24:
            continue
        path = f"{prefix}{entry.name}"
        folder_below = entry.has_directory_entries_index()
        digest = "" if folder_below else _digest(entry)
        try:
            descriptor = (entry.get_security_descriptor_data() or b"").hex()
        except OSError:  # it does not find some that are there
            descriptor = ""
        found[path] = (digest, descriptor)
        if folder_below:
            _collect(entry, f"{path}/", found)


def _digest(entry: Any) -> str:
    digest = hashlib.sha256()
    try:
        while part := entry.read(READ_BYTES):
            digest.update(part)
    except OSError:  # it does not decode a chunk of one repeated byte, among others
        return UNREAD
    return digest.hexdigest()


def _main() -> None:
    volume: Any = import_module("pyfsntfs").volume()  # only the process of its own loads it
    volume.open(sys.argv[1])
    found: dict[str, tuple[str, str]] = {}
    _collect(volume.get_root_directory(), "", found)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    _main()
