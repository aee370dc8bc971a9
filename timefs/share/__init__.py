"""The share: the history as a drive for Windows, macOS and Linux, served by Samba over a mount."""
