"""The commands, a file each: its arguments and its `main`."""
