"""Disks that stand on other files of the instant: backing files, data files, parents."""

import random
from pathlib import Path

import pytest

from store.errors import CorruptError, UnsupportedError
from store.image import BytesImage
from tests.guest.disks.qemu import KIB, MIB, agree, create, need, opened, run, scribble, truth
from timefs.guest.detect import decode, references

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def tools() -> None:
    need("qemu-img", "qemu-io")


def backing_format(path: Path) -> str:
    return {"raw": "raw", "qcow2": "qcow2", "vmdk": "vmdk", "vdi": "vdi"}[path.suffix[1:]]


@pytest.mark.parametrize("seed", range(4))
def test_a_qcow2_chain_over_any_format(seed: int, tmp_path: Path):
    chance = random.Random(seed)
    base = tmp_path / f"base.{chance.choice(('raw', 'qcow2', 'vmdk', 'vdi'))}"
    create(base, backing_format(base), 5 * MIB)
    scribble(base, backing_format(base), 5 * MIB, chance)
    for name in ("one", "two", "three"):
        size = chance.choice((3 * MIB + 512, 5 * MIB, 7 * MIB))
        extended = chance.random() < 0.5
        options = [f"cluster_size={chance.choice((16, 64, 256)) * KIB}"]
        options += ["extended_l2=on"] if extended else []
        above = tmp_path / f"{name}.qcow2"
        create(above, "qcow2", size, options, "-b", base.name, "-F", backing_format(base))
        scribble(above, "qcow2", size, chance, 12)
        base = above
    with opened(tmp_path) as files:
        agree(decode(files[base.name], files.find), truth(base, "qcow2"), chance)


@pytest.mark.parametrize("raw", ["on", "off"])
def test_an_external_data_file(raw: str, tmp_path: Path):
    path = tmp_path / "disk.qcow2"
    create(path, "qcow2", 5 * MIB, ["data_file=disk.data", f"data_file_raw={raw}"])
    scribble(path, "qcow2", 5 * MIB, random.Random(raw))
    with opened(tmp_path) as files:
        assert references(files["disk.qcow2"]) == ["disk.data"]
        agree(decode(files["disk.qcow2"], files.find), truth(path, "qcow2"), random.Random(1))


def test_a_raw_backing_file_is_never_decoded(tmp_path: Path):
    """A guest could else write a header into its disk and read whatever it names."""
    inner = tmp_path / "inner.raw"
    create(inner, "qcow2", MIB)
    create(tmp_path / "disk.qcow2", "qcow2", MIB, (), "-b", "inner.raw", "-F", "raw")
    content = inner.read_bytes()
    with opened(tmp_path) as files:
        assert decode(files["disk.qcow2"], files.find).read(0, 512) == content[:512]


def test_a_vmdk_on_its_parent(tmp_path: Path):
    chance = random.Random(5)
    base, child = tmp_path / "base.vmdk", tmp_path / "child.vmdk"
    create(base, "vmdk", 5 * MIB)
    scribble(base, "vmdk", 5 * MIB, chance)
    create(child, "vmdk", 5 * MIB, (), "-b", "base.vmdk", "-F", "vmdk")
    scribble(child, "vmdk", 5 * MIB, chance)
    with opened(tmp_path) as files:
        assert references(files["child.vmdk"]) == ["base.vmdk"]
        agree(decode(files["child.vmdk"], files.find), truth(child, "vmdk"), chance)
    scribble(base, "vmdk", 5 * MIB, chance)  # which gives it another content id
    with opened(tmp_path) as files, pytest.raises(CorruptError, match="content id"):
        decode(files["child.vmdk"], files.find)


def test_a_missing_file_is_named(tmp_path: Path):
    base = tmp_path / "base.raw"
    create(base, "raw", MIB)
    create(tmp_path / "disk.qcow2", "qcow2", MIB, (), "-b", "base.raw", "-F", "raw")
    base.unlink()
    with opened(tmp_path) as files, pytest.raises(CorruptError, match=r"expected base\.raw among"):
        decode(files["disk.qcow2"], files.find)


def test_a_chain_without_end_is_an_error(tmp_path: Path):
    for name in ("a", "b"):
        create(tmp_path / f"{name}.qcow2", "qcow2", MIB)
    for name, below in (("a", "b"), ("b", "a")):
        run(
            *("qemu-img", "rebase", "-u", "-b", f"{below}.qcow2", "-F", "qcow2", f"{name}.qcow2"),
            cwd=tmp_path,
        )
    with opened(tmp_path) as files, pytest.raises(CorruptError, match="a chain with an end"):
        decode(files["a.qcow2"], files.find)


def test_what_no_file_of_the_machine_can_be_is_not_looked_for(tmp_path: Path):
    create(tmp_path / "disk.qcow2", "qcow2", MIB)
    run(
        *("qemu-img", "rebase", "-u", "-b", "nbd://127.0.0.1/x", "-F", "raw", "disk.qcow2"),
        cwd=tmp_path,
    )
    with opened(tmp_path) as files, pytest.raises(UnsupportedError, match="expected a path"):
        decode(files["disk.qcow2"], files.find)


def test_an_encrypted_disk_says_so(tmp_path: Path):
    path = tmp_path / "disk.qcow2"
    run(
        *("qemu-img", "create", "-q", "--object", "secret,id=s,data=x", "-f", "qcow2"),
        *("-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.hash-alg=sha512", path, "1M"),
    )
    with pytest.raises(UnsupportedError, match="encrypted"):
        decode(BytesImage(path.read_bytes()))
