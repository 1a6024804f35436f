"""What is compared: cells (data x config x seed), each a process of its own, and their paired comparison."""
