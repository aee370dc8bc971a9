"""The Linux adapter: the kernel's FUSE protocol, spoken on /dev/fuse directly."""
