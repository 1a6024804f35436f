"""The normalizations, a file each: config, title, paper, the widths it refuses, and its layer."""
