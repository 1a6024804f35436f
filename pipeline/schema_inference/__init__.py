"""A first schema from a sample of a file: sample, kind of each column, proposal."""
