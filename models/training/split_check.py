"""What a training and its evaluation need of the splits: known from the summary, before any step."""

from __future__ import annotations

import logging

from models.config.train import TrainConfig
from pipeline.errors import ConfigError, DataError
from pipeline.records.data_directory import SPLITS, DataDirectory

__all__ = ["check_splits"]

_LOG = logging.getLogger(__name__)


def check_splits(data: DataDirectory, config: TrainConfig) -> None:
    """Refuses splits that end a training late, and names those that leave a measure undefined.

    Validation or test rows of one kind (no click, or nothing else) are no obstacle: log loss and calibration
    ratio are measured on them, an AUC is not, and no calibrator is fitted; a line on the log says so.

    Raises:
        DataError: the rows of a split have weight 0 together, or the train split holds labels of one kind.
        ConfigError: early stopping by AUC, and validation rows of one kind.
    """
    for split in SPLITS:
        rows, facts = data.num_rows(split), data.summary["splits"][split]
        if not rows:
            continue
        if facts.get("weight", 1) <= 0:
            raise DataError(
                f"the rows of the {split} split must have weight",
                f"{rows:,} rows with weight 0 each",
                "Correct the schema's `weight` column, leave it out, or choose another `split`.",
            )
        rate = data.label_rate(split)
        if 0 < rate < 1:
            continue
        kind = "no click" if rate <= 0 else "nothing but clicks"
        if split == "train":
            raise DataError(
                "the train split must hold clicks and rows without one",
                f"{kind} in {rows:,} rows",
                "Correct the schema's `label` or `split`, or preprocess more data.",
            )
        stopping = config.stopping
        if split == "validation" and stopping is not None and stopping.metric == "auc":
            raise ConfigError(
                "early stopping by AUC needs clicks and rows without one in the validation split",
                f"{kind} in {rows:,} rows",
                "Set train.early_stopping.metric=log_loss, or give the split more rows.",
            )
        _LOG.warning("the %s split holds %s in %s rows: no AUC there", split, kind, f"{rows:,}")
