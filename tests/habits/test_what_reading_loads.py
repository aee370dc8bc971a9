"""Commands that only read history load nothing that only the catalog needs."""

import subprocess
import sys

HEAVY = ("pyarrow", "deltalake", "duckdb")


def test_a_mount_a_listing_and_a_share_load_no_table_libraries():
    for command in ("mount", "ls", "cat", "find", "restore", "share", "status"):
        asked = (
            f"import sys, timefs.cli.{command}\nprint(sorted({set(HEAVY)!r} & sys.modules.keys()))"
        )
        done = subprocess.run(
            [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.strip() == "[]", command
