"""Keys: all secret material of a repository, as one value.

Defined here and only here. Used by whoever digests blocks or proves digests. Immutable.
"""

from typing import NamedTuple


class Keys(NamedTuple):
    """What the holder of a repository's keys knows."""

    digest: bytes
    """32 bytes: the key of its blocks' digests."""
