"""From batches to weights: trainer, step, state, checkpoints, progress, scoring, batch statistics."""
