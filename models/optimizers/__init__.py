"""Optimizers: row-sparse ones for embedding tables, and the composite that trains a whole model."""

from models.optimizers.composite import CompositeOptimizer
from models.optimizers.factory import make_optimizer
from models.optimizers.fused import FusedAdam
from models.optimizers.row_sparse import (
    CowClip,
    LazyAdam,
    RowSparseAdagrad,
    RowSparseFtrl,
    RowSparseOptimizer,
    RowwiseAdagrad,
)
from models.optimizers.schedule import LearningRate, ScaledRates, scale_rates

__all__ = [
    "CompositeOptimizer",
    "CowClip",
    "FusedAdam",
    "LazyAdam",
    "LearningRate",
    "RowSparseAdagrad",
    "RowSparseFtrl",
    "RowSparseOptimizer",
    "RowwiseAdagrad",
    "ScaledRates",
    "make_optimizer",
    "scale_rates",
]
