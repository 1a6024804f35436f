"""Optimizers: row-sparse ones for embedding tables, and the composite that trains a whole model."""

from models.optimizers.adagrad import RowSparseAdagrad, RowwiseAdagrad
from models.optimizers.composite import CompositeOptimizer
from models.optimizers.factory import make_optimizer
from models.optimizers.ftrl import RowSparseFtrl
from models.optimizers.fused import FusedAdam
from models.optimizers.lazy_adam import LazyAdam
from models.optimizers.row_sparse import CowClip, RowAveraging, RowSparseOptimizer
from models.optimizers.schedule import LearningRate, ScaledRates, scale_rates

__all__ = [
    "CompositeOptimizer",
    "CowClip",
    "FusedAdam",
    "LazyAdam",
    "LearningRate",
    "RowAveraging",
    "RowSparseAdagrad",
    "RowSparseFtrl",
    "RowSparseOptimizer",
    "RowwiseAdagrad",
    "ScaledRates",
    "make_optimizer",
    "scale_rates",
]
