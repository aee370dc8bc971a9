"""The log of a machine: changes on their way into packs."""
