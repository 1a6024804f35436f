"""What learns. Knows tensors, not files."""
