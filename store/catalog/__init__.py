"""The catalog: all rows as Delta tables behind the packs; derived."""
