"""LVM2's own tools on loop devices: groups of volumes that they made and where they put them.

Without a device-mapper they write metadata only, which is all that is wanted.
"""

import json
import os
import subprocess
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.guest.disks.qemu import MIB, run
from tests.loop_devices import need_loop_devices

ENVIRONMENT = {**os.environ, "DM_DISABLE_UDEV": "1", "LVM_SUPPRESS_FD_WARNINGS": "1"}


class Run(NamedTuple):
    """A run of a logical volume, as the tools report it. Bytes."""

    start: int
    length: int
    device: str
    place: int


class Tools:
    """The tools, with eyes for some devices alone."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = devices
        accepted = ",".join(f'"a|^{device}$|"' for device in devices)
        self._config = (
            f'devices{{use_devicesfile=0 filter=[{accepted},"r|.*|"]}} backup{{backup=0 archive=0}}'
        )

    def __call__(self, command: str, *words: "str | Path") -> str:
        done = subprocess.run(
            [command, "--driverloaded", "n", "--config", self._config, *words],
            check=False,
            capture_output=True,
            timeout=60,
            text=True,
            env=ENVIRONMENT,
        )
        assert done.returncode == 0, f"{command} {words}: {done.stdout} {done.stderr}"
        return done.stdout

    def volume(self, group: str, name: str, *words: str) -> None:
        self("lvcreate", "-an", "-Zn", "-Wn", *words, "-n", name, group)

    def report(self, command: str, kind: str, fields: str) -> list[dict[str, str]]:
        text = self(
            command, "-o", fields, "--units", "b", "--nosuffix", "--reportformat", "json",
            *(["--segments"] if kind == "seg" else []),
        )  # fmt: skip
        report: dict[str, Any] = json.loads(text)
        return report["report"][0][kind]

    def runs(self, name: str) -> list[Run]:
        """Where a volume's bytes are on which device."""
        starts = {
            row["pv_name"]: int(row["pe_start"])
            for row in self.report("pvs", "pv", "pv_name,pe_start")
        }
        extent = int(self.report("vgs", "vg", "vg_extent_size")[0]["vg_extent_size"])
        fields = "lv_name,stripe_size,seg_start,seg_size,seg_pe_ranges"
        found: list[Run] = []
        for row in self.report("lvs", "seg", fields):
            if row["lv_name"] != name:
                continue
            areas: list[tuple[str, int]] = []
            for part in row["seg_pe_ranges"].split():
                device, _, extents = part.partition(":")
                areas.append((device, starts[device] + int(extents.partition("-")[0]) * extent))
            start, size = int(row["seg_start"]), int(row["seg_size"])
            step = int(row["stripe_size"]) or size
            for number, at in enumerate(range(0, size, step)):
                turn, column = divmod(number, len(areas))
                device, place = areas[column]
                found.append(Run(start + at, step, device, place + turn * step))
        return found


@contextmanager
def loop_devices(*files: Path) -> Generator[list[str]]:
    need_loop_devices()
    with ExitStack() as stack:
        devices: list[str] = []
        for file in files:
            device = run("losetup", "--find", "--show", file).strip()
            stack.callback(run, "losetup", "--detach", device)
            devices.append(device)
        yield devices


def physical(folder: Path, *names: str, size: int = 32 * MIB) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        with path.open("wb") as file:
            file.truncate(size)
    return paths


def scatter(runs: Sequence[Run], content: bytes, files: dict[str, Path]) -> None:
    """Write a volume's bytes where the tools said that they are."""
    for start, length, device, place in runs:
        with files[device].open("r+b") as file:
            file.seek(place)
            file.write(content[start : start + length])
