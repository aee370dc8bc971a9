"""Partition tables: MBR (logical partitions too) and GPT, and partitions as images.

Used by timefs.guest.contents, slot and disktree: `read_mbr`, `read_gpt`, `gpt_damage`, `Partition`,
`partition_image` and `kept` are the whole interface. Each entry of a table is judged by
itself: one that makes no sense has a problem of its own, the others are as good as before.
"""

from timefs.guest.partitions.gpt import Gpt, gpt_damage, read_gpt
from timefs.guest.partitions.mbr import Mbr, read_mbr
from timefs.guest.partitions.partition import Partition, kept, partition_image

__all__ = [
    "Gpt",
    "Mbr",
    "Partition",
    "gpt_damage",
    "kept",
    "partition_image",
    "read_gpt",
    "read_mbr",
]
