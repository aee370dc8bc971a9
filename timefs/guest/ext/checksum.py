"""CRC-32C as ext4 and its journal use it: chained, without the final inversion.

Defined here and only here: `crc32c` and `ALL_ONES`. Used by every module of this package.
Stateless.
"""

from typing import Final

from google_crc32c import extend as _extend  # pyright: ignore[reportUnknownVariableType]  # untyped

ALL_ONES: Final = 0xFFFFFFFF
"""Where a chain begins."""


def crc32c(seed: int, content: bytes) -> int:
    """The checksum of `content` that continues the chain at `seed`."""
    return int(_extend(seed ^ ALL_ONES, content)) ^ ALL_ONES  # pyright: ignore[reportUnknownArgumentType]
