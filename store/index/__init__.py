"""The index: rows sorted for reading, on the machine that reads; derived from packs, and proved."""
