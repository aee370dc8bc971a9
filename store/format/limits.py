"""Limits: what a pack may claim, asked before anything of it is allocated or decoded.

Defined here and only here. Used by whoever parses packs. A pack that breaks one is damaged: it
costs its own machine, and no other command anything. Values are part of format 2.
"""

from typing import Final

SLOTS_MAX: Final = 1 << 17
"""Slots of a pack: 512 MiB of blocks."""

FRAME_BLOCKS_MAX: Final = 16

ROWS_MAX: Final = (1 << 17) + (1 << 13)
REFERENCES_MAX: Final = 1 << 17
NAMES_MAX: Final = 1 << 12
NAMES_BYTES_MAX: Final = 1 << 20
NAME_BYTES_MAX: Final = 4096
"""Of a statement; a name may be a path."""

STATEMENT_BYTES_MAX: Final = 16 << 20
"""As stored, and decoded."""

EPOCH_MAX: Final = 1 << 22
"""Half of what a position holds: what is lost may take numbers of its own behind it."""

SEQUENCE_MAX: Final = (1 << 40) - 1
FILE_BYTES_MAX: Final = 1 << 56

NUMBER_MAX: Final = (1 << 32) - 1
"""Of a writer's packs."""

WRITER_MIN: Final = 1
"""Writers are numbered from here on …"""

WRITER_MAX: Final = (1 << 31) - 1
"""… and up to here."""

MISSING_MAX: Final = 4096
"""Packs that may be missing in a row: what lies beyond is taken for a stray file."""
