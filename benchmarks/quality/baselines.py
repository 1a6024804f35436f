"""scikit-learn's logistic regression and LightGBM on the rows that the networks see.

Both choose their options on the validation split and are fitted on the training split only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.quality.data import EncodedRows, encoded_rows
from experiments.cell import Cell
from experiments.outcome import CellOutcome, SplitLogits
from pipeline.records.data_directory import DataDirectory
from pipeline.records.encoded import EncodedSpec

__all__ = ["fit_and_score", "lightgbm_logits", "logistic_regression_logits"]

Array = NDArray[np.float64]
INVERSE_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)  # scikit-learn's C
LARGEST_NATIVE = 600  # ids of more values reach LightGBM as target means
FOLDS, PRIOR_ROWS = 5, 50.0
TREES, PATIENCE = 1000, 30
TREE_OPTIONS = (
    {"num_leaves": 15, "min_data_in_leaf": 200},
    {"num_leaves": 63, "min_data_in_leaf": 500},
)


def fit_and_score(cell: Cell, data: DataDirectory, work: Path) -> CellOutcome:
    """The runner of a cell that says `baseline: logistic_regression` or `lightgbm`; scores the test split."""
    train, validation, test = (encoded_rows(data, s) for s in ("train", "validation", "test"))
    if cell.sections["baseline"] == "lightgbm":
        logits, chosen = lightgbm_logits(train, validation, test, data.spec, cell.seed)
    else:
        logits, chosen = logistic_regression_logits(train, validation, test, data.spec)
    scored = {"test": SplitLogits.uncalibrated(np.asarray(logits, np.float64))}
    return CellOutcome(scored, {"chosen": chosen}, data.num_rows("train"))


def one_hot(rows: EncodedRows, spec: EncodedSpec) -> sparse.csr_matrix:
    """One-hot ids, sequences as means over their ids, numerics as they are (scaled already)."""
    count = len(rows.label)
    sizes = [feature.vocab_size for feature in spec.categorical]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    columns = [rows.ids + offsets[:-1].astype(np.int32)]
    values = [np.ones(rows.ids.shape, np.float32)]
    width = int(offsets[-1])
    for feature in spec.sequences:
        ids = rows.sequences[feature.name]
        there = ids != 0
        columns.append(ids + np.int32(width))
        values.append(there / np.maximum(there.sum(axis=1, keepdims=True), 1))
        width += feature.vocab_size
    columns.append(np.tile(np.arange(width, width + rows.numeric.shape[1]), (count, 1)))
    values.append(rows.numeric)
    width += rows.numeric.shape[1]
    flat = np.concatenate(columns, axis=1).astype(np.int32)
    data = np.concatenate([v.astype(np.float64) for v in values], axis=1)
    starts = np.arange(count + 1, dtype=np.int64) * flat.shape[1]
    return sparse.csr_matrix((data.ravel(), flat.ravel(), starts), shape=(count, width))


def logistic_regression_logits(
    train: EncodedRows, validation: EncodedRows, test: EncodedRows, spec: EncodedSpec
) -> tuple[Array, dict[str, Any]]:
    """Logits of the test rows, and the strength of the penalty that was chosen."""
    from sklearn.linear_model import LogisticRegression

    from models.metrics import log_loss

    x, held_out = one_hot(train, spec), one_hot(validation, spec)
    model = LogisticRegression(solver="lbfgs", max_iter=200, warm_start=True)
    losses: dict[float, float] = {}
    coefficients: dict[float, tuple[Any, Any]] = {}
    for c in INVERSE_PENALTIES:
        model.set_params(C=c).fit(x, train.label)
        losses[c] = log_loss(validation.label, logits=model.decision_function(held_out))
        coefficients[c] = (model.coef_.copy(), model.intercept_.copy())
        if losses[c] > min(losses.values()):
            break  # the loss is convex in practice: weaker penalties only over-fit more
    best = min(losses, key=losses.__getitem__)
    model.coef_, model.intercept_ = coefficients[best]
    return model.decision_function(one_hot(test, spec)), {"C": best}


def lightgbm_logits(
    train: EncodedRows,
    validation: EncodedRows,
    test: EncodedRows,
    spec: EncodedSpec,
    seed: int,
) -> tuple[Array, dict[str, Any]]:
    """Logits of the test rows, and the options that were chosen; `seed` draws rows and columns."""
    import lightgbm

    (x, *others), native = tree_features(train, (validation, test), spec)
    fitted: list[tuple[float, int, Any, dict[str, int]]] = []
    for options in TREE_OPTIONS:
        data = lightgbm.Dataset(x, train.label, categorical_feature=native, free_raw_data=False)
        booster = lightgbm.train(
            {
                "objective": "binary",
                "metric": "binary_logloss",
                "learning_rate": 0.1,
                "feature_fraction": 0.7,
                "bagging_fraction": 0.8,
                "bagging_freq": 1,
                "cat_smooth": 20.0,
                "lambda_l2": 5.0,
                "num_threads": 2,
                "seed": seed,
                "verbosity": -1,
                **options,
            },
            data,
            TREES,
            valid_sets=[data.create_valid(others[0], validation.label)],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        loss = booster.best_score["valid_0"]["binary_logloss"]
        fitted.append((loss, len(fitted), booster, {**options, "trees": booster.best_iteration}))
    _, _, booster, chosen = min(fitted)
    return np.asarray(booster.predict(others[1], raw_score=True), np.float64), chosen


def tree_features(
    train: EncodedRows, others: tuple[EncodedRows, ...], spec: EncodedSpec
) -> tuple[list[Array], list[int]]:
    """Features for trees, and which columns are native categories.

    Numerics and small vocabularies as they are; large ones and the mean over a sequence as smoothed
    target means. A training row's mean leaves out its own fold, so that it never sees its label.
    """
    small = [i for i, f in enumerate(spec.categorical) if f.vocab_size <= LARGEST_NATIVE]
    large = [i for i, f in enumerate(spec.categorical) if f.vocab_size > LARGEST_NATIVE]
    fold = np.random.default_rng(0).integers(FOLDS, size=len(train.label))
    encoders = [
        (lambda rows, i=i: rows.ids[:, i : i + 1], spec.categorical[i].vocab_size) for i in large
    ] + [(lambda rows, n=s.name: rows.sequences[n], s.vocab_size) for s in spec.sequences]
    columns: list[list[Array]] = [[] for _ in range(1 + len(others))]
    for ids_of, size in encoders:
        whole = _target_means(ids_of(train), train.label, size)
        inside = np.zeros(len(train.label))
        for k in range(FOLDS):
            chosen = fold == k
            means = _target_means(ids_of(train)[~chosen], train.label[~chosen], size)
            inside[chosen] = _mean_over(means, ids_of(train)[chosen])
        columns[0].append(inside)
        for column, rows in zip(columns[1:], others, strict=True):
            column.append(_mean_over(whole, ids_of(rows)))
    matrices = [
        np.column_stack([rows.ids[:, small], rows.numeric, *column])
        for rows, column in zip((train, *others), columns, strict=True)
    ]
    return matrices, list(range(len(small)))


def _target_means(ids: NDArray[np.int32], label: NDArray[np.float32], size: int) -> Array:
    """Log odds of a click by id, shrunk towards the mean as if by PRIOR_ROWS rows of it."""
    there = ids != 0 if ids.shape[1] > 1 else np.ones(ids.shape, bool)
    labels = np.broadcast_to(label[:, np.newaxis], ids.shape)[there]
    count = np.bincount(ids[there], minlength=size)
    clicks = np.bincount(ids[there], weights=labels, minlength=size)
    rate = (clicks + PRIOR_ROWS * label.mean()) / (count + PRIOR_ROWS)
    return np.log(rate) - np.log1p(-rate)


def _mean_over(means: Array, ids: NDArray[np.int32]) -> Array:
    """The mean over a row's ids; of a sequence without any: not a number, LightGBM's missing."""
    if ids.shape[1] == 1:
        return means[ids[:, 0]]
    there = ids != 0
    count = there.sum(axis=1)
    total = np.where(there, means[ids], 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(ids), np.nan), where=count > 0)
