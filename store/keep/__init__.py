"""Keeping: what looks after a repository's packs."""
