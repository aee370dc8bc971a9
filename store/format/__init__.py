"""The format: what a pack, its rows, frames and digests are, byte by byte (docs/format)."""
