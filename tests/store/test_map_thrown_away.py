"""A rebuild that throws away a digest map which a capture fills costs the map and nothing else."""

from pathlib import Path

from store.log.digestmap import DigestMap


def test_a_working_copy_that_is_gone_is_not_kept_and_no_error(tmp_path: Path):
    digest_map = DigestMap(tmp_path / "map", 1 << 20, 0)
    digest_map.open(1, lambda _empty: None)
    for path in tmp_path.iterdir():
        path.unlink()
    digest_map.keep(2)
    digest_map.discard()
    assert not list(tmp_path.iterdir())
