"""FAT12, FAT16, FAT32 and exFAT, read-only: from a volume's image to its tree of names.

`looks_like_fat`, `open_fat` and `open_exfat` are the whole interface; everything else is private to
this package. All of it may be called from any thread. Names are as stored, long ones first; they
are found exactly. The volume keeps local time without saying whose: it is shown as UTC, except
where exFAT says more. What is no date is shown as the Linux kernel shows it: one that was never set
as 1980. Several entries that lead to the same clusters are one folder, and errors beside it. Damage
raises `CorruptError`. There is no journal: what a crash left is served as it stands, and the root's
`user.timefs.volume_state` says if the volume was in use.
"""

from timefs.guest.fat.boot import looks_like_fat
from timefs.guest.fat.volume import FatVolume, open_exfat, open_fat

__all__ = ["FatVolume", "looks_like_fat", "open_exfat", "open_fat"]
