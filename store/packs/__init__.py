"""Packs, read and verified."""
