"""The store: packs, the index and the catalog derived from them, and images read back out of them.

Knows nothing of guests, mounts or commands. See docs/architecture.md for the layers.
"""
