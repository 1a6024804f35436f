"""The batch sizes that a served model is prepared for: warm-up and server batching agree on them."""

from __future__ import annotations

__all__ = ["ALLOWED_BATCH_SIZES", "MAX_BATCH_SIZE"]

ALLOWED_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""TF Serving pads a batch up to the next of these: at most twice the work, and ten shapes to warm."""
MAX_BATCH_SIZE = ALLOWED_BATCH_SIZES[-1]
"""Rows of a request, at most: a server that batches refuses larger ones, and clients send no larger."""
