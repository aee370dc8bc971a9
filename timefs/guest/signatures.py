"""Signatures: what is known by its marks alone, and so is only named.

Defined here and only here. Used by timefs.guest.filesystems (volumes), timefs.guest.detect
(containers) and timefs.guest.contents (files that are no disks). Immutable and thread-safe. A row
is a name and the marks that must all be there, each an offset in bytes (negative ones count from
the end) and what stands there; several rows may bear one name.

Source: the formats' own headers, as libblkid and file(1) know them too.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from timefs.guest.ends import HEAD_BYTES, Ends

Mark: TypeAlias = tuple[int, bytes]
Place: TypeAlias = tuple[int, int]
"""An offset, and how many bytes there."""

Row: TypeAlias = tuple[str, *tuple[Mark, ...]]

_PAGES: Final = tuple(4096 << shift for shift in range(5))
_LUKS2_COPIES: Final = tuple(0x4000 << shift for shift in range(9))

BOOTING: Final[tuple[Row, ...]] = (
    ("BitLocker, locked", (3, b"-FVE-FS-")),
    ("BitLocker To Go, locked", (0x1A8, bytes.fromhex("3bd66749292ed84a8399f6a339e3d001"))),
    ("ReFS", (3, b"ReFS\0")),
)
"""Volumes with a boot sector."""

LOCKED: Final[tuple[Row, ...]] = (
    ("LUKS, locked", (0, b"LUKS\xba\xbe")),
    ("FileVault 2 (Core Storage), locked", (8, b"\1\0\x10\0"), (88, b"CS")),
)
"""Encrypted."""

REMNANTS: Final[tuple[Row, ...]] = (
    *(
        ("LUKS, locked, its first header overwritten",
         (at, b"SKUL\xba\xbe\0\2"), (at + 256, at.to_bytes(8, "big")))
        for at in _LUKS2_COPIES
    ),
    *(
        ("FAT, its boot sector damaged", (at, name), (510, b"\x55\xaa"))
        for at, name in ((54, b"FAT12   "), (54, b"FAT16   "), (82, b"FAT32   "))
    ),
    *(
        (f"{name.decode().strip()}, of which only a copy of its boot sector is left", (at, name))
        for at, name in ((-509, b"NTFS    "), (-4093, b"NTFS    "), (12 * 512 + 3, b"EXFAT   "))
    ),
)  # fmt: skip
"""What is left where whatever else is found was written over the rest."""

POOLED: Final[tuple[Row, ...]] = (
    ("bcache", (4120, bytes.fromhex("c68573f64e1a45ca8265f57f48ba6d81")),
     (4104, b"\x08\0\0\0\0\0\0\0")),
    *(
        ("bcachefs", (at + 24, bytes.fromhex(magic)))
        for at in (4096, 2 << 20, -1 << 20)
        for magic in ("c68573f666ce90a9d96a60cf803df7ef", "c68573f64e1a45ca8265f57f48ba6d81")
    ),
    ("Ceph BlueStore", (0, b"bluestore block device")),
    *(("DRBD", (-4036, b"\x83\x74\x02" + last)) for last in (b"\x6b", b"\x6c", b"\x6d")),
    ("DRBD control volume", (0, b"$DRBDmgr=q")),
    ("DRBD proxy log", (0, b"DRBDdlh*")),
    ("LVM1", (0, b"HM\1\0")),
    ("LVM1", (0, b"HM\2\0")),
    ("device-mapper snapshot", (0, b"SnAp")),
    ("dm-verity hashes", (0, b"verity\0\0")),
    ("dm-integrity", (0, b"integrt\0")),
    ("VMFS volume member", (1 << 20, bytes.fromhex("0dd001c0"))),
    ("UBI", (0, b"UBI#")),
    ("VDO", (0, b"dmvdo001")),
    *(("Stratis", (at + 4, b"!Stra0tis\x86\xff\x02^Arh")) for at in (512, 4608)),
    ("Storage Spaces", (0, b"SPACEDB ")),
    *(("ZFS", (at + 12, b"\0\0\0\x24\0\0\0\x20\0\0\0\7version")) for at in (0x4000, 0x44000)),
    *(("ZFS", (at, b"\1\1\0\0\0\0\0\0\0\0\0\1"), (at + 20, b"\0\0\0\7version"))
      for at in (0x4000, 0x44000)),
    ("Oracle ASM", (32, b"ORCLDISK")),
)  # fmt: skip
"""Parts of something larger, which alone they do not show."""

SWAP: Final[tuple[Row, ...]] = (
    ("hibernated Linux (TuxOnIce)", (0, bytes.fromhex("edc302e99856e50c"))),
    *(
        ("swap, holding a hibernated Linux", (page - 10, magic))
        for page in _PAGES
        for magic in (b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001")
    ),
    *(
        ("swap", (page - 10, b"SWAPSPACE2"), (1024, version))
        for page in _PAGES
        for version in (b"\1\0\0\0", b"\0\0\0\1")
    ),
    *(("swap", (page - 10, b"SWAP-SPACE")) for page in _PAGES),
)

_UFS_MAGICS: Final = ("00011954", "19540119", "00195612", "00095014", "00612195", "05231994")

NAMED: Final[tuple[Row, ...]] = (
    ("XFS log of another volume", (0, bytes.fromhex("feedbabe"))),
    ("btrfs", (0x10040, b"_BHRfS_M")),
    ("APFS", (32, b"NXSB")),
    ("ReiserFS", (0x10034, b"ReIsErFs")),
    ("ReiserFS", (0x10034, b"ReIsEr2Fs")),
    ("ReiserFS", (0x10034, b"ReIsEr3Fs")),
    ("ReiserFS", (0x2034, b"ReIsErFs")),
    ("ReiserFS", (0x2014, b"ReIsErFs")),
    ("Reiser4", (0x10000, b"ReIsEr4")),
    ("JFS", (0x8000, b"JFS1")),
    *(("UDF", (0x8001 + 2048 * at, nsr)) for at in range(16) for nsr in (b"NSR02", b"NSR03")),
    ("ISO 9660", (0x8001, b"CD001")),
    ("ISO 9660 (High Sierra)", (0x8009, b"CDROM")),
    ("HFS+", (1024, b"H+\0\4")),
    ("HFSX", (1024, b"HX\0\5")),
    ("HFS", (1024, b"BD"), (1038, b"\0\3")),
    *(
        ("UFS", (base + 1372, bytes.fromhex(magic)[::step]))
        for base in (8 << 10, 64 << 10, 0, 256 << 10)
        for magic in _UFS_MAGICS
        for step in (1, -1)
    ),
    ("HPFS", (8192, bytes.fromhex("49e895f9")), (8704, bytes.fromhex("491891f9"))),
    ("cramfs", (0, bytes.fromhex("453dcd28"))),
    ("cramfs", (512, bytes.fromhex("453dcd28"))),
    ("cramfs", (0, bytes.fromhex("28cd3d45"))),
    ("romfs", (0, b"-rom1fs-")),
    ("squashfs", (0, b"hsqs")),
    ("squashfs", (0, b"sqsh")),
    ("EROFS", (1024, bytes.fromhex("e2e1f5e0"))),
    *(("F2FS", (at, bytes.fromhex("1020f5f2"))) for at in (1024, 5120)),
    ("NILFS2", (1024, b"\2\0\0\0\0\0\x34\x34")),
    *(("NILFS2", (-4096, bytes([2, 0, 0, 0, minor, 0]) + b"\x34\x34")) for minor in (0, 1)),
    ("GFS2", (0x10000, bytes.fromhex("01161970")), (0x10018, bytes.fromhex("00000709"))),
    ("GFS", (0x10000, bytes.fromhex("01161970"))),
    ("OCFS", (0x2000, b"OracleCFS")),
    *(("OCFS2", (at, b"OCFSV2")) for at in (1024, 2048, 4096, 8192)),
    ("VxFS", (1024, bytes.fromhex("f5fc01a5"))),
    ("VxFS", (8192, bytes.fromhex("a501fcf5"))),
    ("NetWare NSS", (4096, b"SPB5")),
    ("VMFS", (2 << 20, bytes.fromhex("5ef1ab2f"))),
    ("BFS (UnixWare)", (0, bytes.fromhex("cefaad1b"))),
    *(("BFS (BeOS, Haiku)", (at, magic)) for at in (32, 544) for magic in (b"BFS1", b"1SFB")),
    ("UBIFS", (0, bytes.fromhex("31181006"))),
    ("ScoutFS", (0x10004, bytes.fromhex("8b423c10"))),
    ("zonefs", (0, b"SFOZ")),
    ("mpool", (0, b"mpoolDev")),
    ("EXFS", (0, b"EXFS")),
    ("QNX6", (0x2000, bytes.fromhex("22111968"))),
    *(("Amiga volume", (0, b"DOS" + bytes([kind]))) for kind in range(8)),
    *(
        ("System V file system", (1024 * at + 1016, bytes.fromhex("fd187e20")[::step]))
        for at in (0, 9, 15, 18)
        for step in (1, -1)
    ),
    ("Xenix file system", (2048, bytes.fromhex("2b5544"))),
    ("Xenix file system", (2048, bytes.fromhex("44552b"))),
    *(
        ("MINIX", (1040, bytes.fromhex(magic)[::step]), (1034, b"\0\0"))
        for magic in ("7f13", "8f13", "6824", "7824")
        for step in (1, -1)
    ),
    *(("MINIX", (1048, magic), (1028, b"\0\0"), (1036, b"\0\0")) for magic in (b"ZM", b"MZ")),
)
"""File systems that no parser here reads."""

TABLES: Final[tuple[Row, ...]] = (
    ("Apple partition map", (0, b"ER"), (512, b"PM\0\0")),
    ("Apple partition map", (0, b"ER"), (2048, b"PM\0\0")),
    ("Apple partition map", (512, b"PM\0\0")),
    *(
        ("BSD disklabel", (at, bytes.fromhex("57455682")), (at + 132, bytes.fromhex("57455682")))
        for at in (512, 64, 128)
    ),
    ("SGI disk label", (0, bytes.fromhex("0be5a941"))),
    ("AIX disk", (0, bytes.fromhex("c9c2d4c1"))),
    *(("Amiga partition table", (512 * at, b"RDSK")) for at in range(16)),
    ("IBM DASD label", (8192, bytes.fromhex("e5d6d3f1"))),
    ("IBM DASD label", (8196, bytes.fromhex("e5d6d3f1"))),
    ("IBM DASD label", (8192, bytes.fromhex("d3d5e7f1"))),
    ("IBM DASD label", (8192, bytes.fromhex("c3d4e2f1"))),
    ("Solaris x86 partition table", (524, bytes.fromhex("eede0d60"))),
    ("UnixWare partition table", (14852, bytes.fromhex("0d60e5ca"))),
    ("Ultrix partition table", (16312, bytes.fromhex("57290300"))),
    ("Windows dynamic disk (LDM)", (3072, b"PRIVHEAD")),
)
"""Partition tables that are not read."""

CONTAINERS: Final[tuple[Row, ...]] = (
    ("VMDK of an old ESX snapshot", (0, b"COWD")),
    ("QED image", (0, b"QED\0")),
    ("Parallels image", (0, b"WithoutFreeSpace")),
    ("Parallels image", (0, b"WithouFreSpacExt")),
    ("Apple disk image (DMG)", (-512, b"koly\0\0\0\4")),
    ("Apple sparse disk image", (0, b"sprs")),
    ("Apple disk image, encrypted", (0, b"encrcdsa")),
    ("Apple disk image, encrypted", (-8, b"cdsaencr")),
    ("EnCase image (E01)", (0, b"EVF\x09\x0d\x0a\xff\0")),
    ("EnCase image (L01)", (0, b"LVF\x09\x0d\x0a\xff\0")),
    ("EnCase image (Ex01)", (0, b"EVF2\x0d\x0a\x81\0")),
    ("EnCase image (Lx01)", (0, b"LEF2\x0d\x0a\x81\0")),
    ("AFF image", (0, b"AFF10\x0d\x0a\0")),
    ("Bochs image", (0, b"Bochs Virtual HD Image")),
    ("cloop image", (0, b"#!/bin/sh\n#V2.0 Format")),
    ("Windows image (WIM)", (0, b"MSWIM\0\0\0")),
    ("Partclone image", (0, b"partclone-image")),
    ("CHD image", (0, b"MComprHD")),
    ("Acronis image", (0, bytes.fromhex("b46e6844"))),
)
"""Disks in formats that are not decoded."""

NO_DISKS: Final[tuple[Row, ...]] = (
    ("ELF", (0, b"\x7fELF")),
    ("Hyper-V machine", (0, bytes.fromhex("14202801"))),
    ("VMware state", (0, bytes.fromhex("d2bed2be"))),
    ("VMware state", (0, bytes.fromhex("d1bad1ba"))),
    ("VMware state", (0, bytes.fromhex("d0bed2be"))),
    ("VMware state", (0, bytes.fromhex("d3bed2be"))),
    ("VMware NVRAM", (0, b"MRVN")),
    ("QEMU state", (0, b"QEVM")),
    ("libvirt state", (0, b"LibvirtQemudSave")),
    ("firmware variables", (40, b"_FVH")),
    ("SQLite", (0, b"SQLite format 3\0")),
    ("tar", (257, b"ustar")),
    ("gzip", (0, b"\x1f\x8b\x08")),
    ("bzip2", (0, b"BZh")),
    ("xz", (0, b"\xfd7zXZ\0")),
    ("zstd", (0, bytes.fromhex("28b52ffd"))),
    ("zip", (0, b"PK\3\4")),
    ("7z", (0, b"7z\xbc\xaf\x27\x1c")),
    ("PDF", (0, b"%PDF-")),
    ("SQL Server pages", (0, b"\1\x0f\0\0")),
)
"""Files that may be captured beside disks, and are none."""


class Known(NamedTuple):
    """A row, in the order of rows."""

    order: int
    name: str
    marks: list[Mark]


class Signatures:
    """Rows ready to be looked for: all that begin at one place with one look at it."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._near: dict[Place, dict[bytes, list[Known]]] = {}
        """By the place of the first mark, within the head."""
        self._far: dict[Place, dict[bytes, list[Known]]] = {}
        """By that too, elsewhere."""
        for order, (name, *marks) in enumerate(rows):
            offset, magic = marks[0]
            within = offset >= 0 and offset + len(magic) <= HEAD_BYTES
            magics = (self._near if within else self._far).setdefault((offset, len(magic)), {})
            magics.setdefault(magic, []).append(Known(order, name, marks))

    def found(self, ends: Ends) -> tuple[str, int] | None:
        """The name of the first row whose marks are all there, and where its first mark is."""
        head = ends.head
        candidates: list[Known] = []
        for (offset, length), magics in self._near.items():
            candidates += magics.get(head[offset : offset + length], ())
        for place, magics in self._far.items():
            candidates += magics.get(ends.at(*place), ())
        for known in sorted(candidates):
            if all(ends.at(offset, len(magic)) == magic for offset, magic in known.marks):
                return known.name, ends.place(known.marks[0][0])
        return None
