"""From batches to weights: loop, step, strategy, state, checkpoints, progress; and scoring."""
