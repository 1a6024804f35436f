"""Encoded rows on disk: layouts of a record, the data directory, readers, segments."""
