"""How a model is trained, validated and frozen. Imports no TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from pipeline.errors import ConfigError
from pipeline.strict_config import Changes, StrictConfig, config_error, did_you_mean

__all__ = [
    "AUTO_EPOCHS",
    "AveragingConfig",
    "BinaryCrossEntropyConfig",
    "CowClipConfig",
    "EarlyStoppingConfig",
    "EmbeddingOptimizer",
    "FocalConfig",
    "LossConfig",
    "PosWeightConfig",
    "ScalingConfig",
    "ScheduleConfig",
    "TrainConfig",
    "parse_train_config",
]

EmbeddingOptimizer = Literal["adagrad", "rowwise_adagrad", "lazy_adam", "ftrl", "adam"]
Metric = Literal["auc", "log_loss"]
AUTO_EPOCHS = 1.5  # the most that `epochs: auto` runs
_LOSS_KINDS = ("bce", "pos_weight", "focal")
_WITHOUT_ACCUMULATOR = ("lazy_adam", "adam")


class _Loss(StrictConfig):
    label: ClassVar[str] = "train.loss"
    shorthand: ClassVar[str | None] = "kind"


class BinaryCrossEntropyConfig(_Loss):
    """Plain log loss: logits are log odds."""

    kind: Literal["bce"] = "bce"


class PosWeightConfig(_Loss):
    """Clicks weigh `pos_weight` times; "balanced" is (1 - rate) / rate of the training rows."""

    kind: Literal["pos_weight"] = "pos_weight"
    pos_weight: Annotated[float, Field(gt=0)] | Literal["balanced"] = "balanced"


class FocalConfig(_Loss):
    """Focal loss (arXiv 1708.02002) with the paper's best alpha and gamma."""

    kind: Literal["focal"] = "focal"
    alpha: float = Field(0.25, gt=0, lt=1)
    gamma: float = Field(2.0, ge=0, le=10)


LossConfig = BinaryCrossEntropyConfig | PosWeightConfig | FocalConfig


class EarlyStoppingConfig(StrictConfig):
    """Stop when the validation metric has not improved for `patience` evaluations.

    The weights kept are the best ones, not the last.

    Attributes:
        metric: auc (higher is better) or log_loss (lower is better).
        patience: evaluations without improvement before training stops.
        min_delta: what counts as an improvement.
    """

    label: ClassVar[str] = "train.early_stopping"
    metric: Metric = "auc"
    patience: int = Field(1, ge=1)
    min_delta: float = Field(0.0, ge=0)


class AveragingConfig(StrictConfig):
    """The weights that are validated and kept: an average over the last steps, not the last iterate.

    A constant learning rate leaves the weights wandering around where they should be; their mean is
    nearer (Izmailov et al. 2018, arXiv 1803.05407). Training itself goes on from the last iterate.

    Attributes:
        kind: tail, the mean over the last steps of an epoch; exponential, a moving average over about as
            many steps, never reset; none, the last iterate.
        share: of an epoch's steps that the average is over.
    """

    label: ClassVar[str] = "train.averaging"
    shorthand: ClassVar[str | None] = "kind"
    kind: Literal["tail", "exponential", "none"] = "tail"
    share: float = Field(0.2, gt=0, le=1)


class ScheduleConfig(StrictConfig):
    """Factor on both learning rates, by step.

    Attributes:
        kind: constant, cosine or linear (to `final_factor` at the last step of all).
        warmup_steps: steps over which the factor rises linearly from 0 to 1 first.
        final_factor: what cosine and linear end at.
    """

    label: ClassVar[str] = "train.schedule"
    kind: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    final_factor: float = Field(0.0, ge=0, le=1)


class ScalingConfig(StrictConfig):
    """How learning rates, L2 and warm-up follow the batch size, s = global / base.

    rule        dense lr    embedding lr   embedding l2
    none        1           1              1
    linear      s           s              1
    sqrt        sqrt(s)     sqrt(s)        sqrt(s)
    cowclip     sqrt(s)     1              s             (arXiv 2204.06240, table 2)

    Attributes:
        rule: the row of the table.
        base_batch_size: the batch size for which the rates in the config hold.
        warmup_epochs: a linear warm-up of this many epochs when s > 1 and the schedule has none.
    """

    label: ClassVar[str] = "train.scaling"
    rule: Literal["none", "linear", "sqrt", "cowclip"] = "none"
    base_batch_size: int = Field(512, ge=1)
    warmup_epochs: float = Field(0.0, ge=0)


class CowClipConfig(StrictConfig):
    """Adaptive column-wise clipping of embedding gradients (arXiv 2204.06240, algorithm 1).

    A row that occurs n times has its gradient clipped to n * max(ratio * |row|, bound).
    """

    label: ClassVar[str] = "train.cowclip"
    ratio: float = Field(1.0, gt=0)
    bound: float = Field(1e-5, gt=0)


class TrainConfig(StrictConfig):
    """One training. Sizes are rows, rates are per step.

    Every option changes the weights, if only their last bits, unless its annotation states otherwise.

    Attributes:
        global_batch_size: rows of one step over all replicas together.
        epochs: passes over the training rows, at most; "auto": 1, and up to half of a second one where
            validation says that it helps and no schedule has to know the end.
        seed: of initial weights, row order and dropout.
        learning_rate: of every variable but the embedding tables.
        embedding_learning_rate: of the tables; 0.1 for the Adagrads and FTRL, 0.01 for Adam, lazy or
            not, unless given.
        embedding_initial_accumulator: what adagrad, rowwise_adagrad and ftrl start from; None for the
            optimizer's own, next to nothing. The gradient of a row is a mean over the batch: one click
            in 512 adds about 4e-6, so that from TensorFlow's usual 0.1 a rate is never adapted.
        embedding_l2: penalty embedding_l2/2 * |row|^2 on the rows that a batch touches, each once.
            Like the accumulator and CowClip it holds for plain cross-entropy: under a loss that pulls
            s times as hard at a click (about 8 for pos_weight 10, 25 for "balanced" and 1/4 for
            focal at 2 % clicks) the tables get their gradients over s, and learn at the same pace.
        optimizer: of every variable but the tables.
        embedding_optimizer: of the tables; all but "adam" cost what the batch touches.
        loss: bce, pos_weight or focal; a bare name means its defaults.
        schedule, scaling, cowclip, averaging: see their classes.
        early_stopping: see its class. "auto" stops by the validation log loss where validation has clicks
            enough to tell (`evidence_clicks`) and keeps the best epoch; false runs every epoch.
        evidence_clicks: clicks, and rows without one, that validation must have for "auto".
        gradient_clip_norm: bound of the global norm over all gradients; None: no bound.
        steps_per_execution: steps inside one call of the compiled function.
        checkpoint_every_steps: what a SIGKILL can lose at most.
        keep_checkpoints: newest ones kept; at least 2, so that one may be corrupt.
        precision: of matrix products in training; weights and the export are always float32.
        matmul: "highest" turns TF32 off on GPUs, so that parity is float32's.
        xla: compile forward and backward pass of the dense part; never reaches the export.
        tables_on: "device" mirrors the tables on every replica, "host" keeps one copy in host
            memory and updates it after the replicas' step.
        cross_replica: how gradients are summed; "auto" is NCCL on GPUs.
        deterministic: same seed and data, same bits; ops without such a kernel raise.
        reestimate_batch_statistics: recompute batch-norm moving statistics over training batches
            before every evaluation and before the weights are saved.
        reestimate_batches: how many batches for that.
        evaluation_batch_size: rows scored at once in evaluation; it moves logits by rounding only.
        one_epoch_tolerance: a relative rise of the validation log loss after a tenth of the second
            epoch that is more than this is warned about; early_stopping "auto" stops there.
    """

    label: ClassVar[str] = "train"
    changes: ClassVar[Changes] = Changes.WEIGHTS
    global_batch_size: int = Field(512, ge=1)
    epochs: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    seed: int = Field(0, ge=0, lt=2**31)
    learning_rate: float = Field(1e-3, gt=0)
    embedding_learning_rate: float = Field(0.1, gt=0)
    embedding_initial_accumulator: float | None = Field(None, gt=0)
    embedding_l2: float = Field(0.0, ge=0)
    optimizer: Literal["adam", "adagrad", "sgd"] = "adam"
    embedding_optimizer: EmbeddingOptimizer = "adagrad"
    loss: LossConfig = Field(BinaryCrossEntropyConfig(), discriminator="kind")
    schedule: ScheduleConfig = ScheduleConfig()
    scaling: ScalingConfig = ScalingConfig()
    cowclip: CowClipConfig | None = None
    averaging: AveragingConfig = AveragingConfig()
    early_stopping: EarlyStoppingConfig | Literal["auto"] | None = "auto"
    evidence_clicks: int = Field(50, ge=1)
    gradient_clip_norm: float | None = Field(None, gt=0)
    steps_per_execution: Annotated[int, Changes.NOTHING] = Field(16, ge=1)
    checkpoint_every_steps: Annotated[int, Changes.NOTHING] = Field(1000, ge=1)
    keep_checkpoints: Annotated[int, Changes.NOTHING] = Field(2, ge=2)
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    matmul: Literal["highest", "default"] = "highest"
    xla: bool = False
    tables_on: Literal["device", "host"] = "device"
    cross_replica: Literal["auto", "nccl", "hierarchical_copy", "reduction_to_one"] = "auto"
    deterministic: bool = True
    reestimate_batch_statistics: bool = True
    reestimate_batches: int = Field(200, ge=1)
    evaluation_batch_size: Annotated[int, Changes.EVALUATION] = Field(8192, ge=1)
    one_epoch_tolerance: float = Field(0.005, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _rate_of_the_embedding_optimizer(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or raw.get("embedding_learning_rate") is not None:
            return raw
        kept = {key: value for key, value in raw.items() if key != "embedding_learning_rate"}
        is_adam = raw.get("embedding_optimizer") in _WITHOUT_ACCUMULATOR
        return {**kept, "embedding_learning_rate": 0.01} if is_adam else kept

    @field_validator("loss", mode="before")
    @classmethod
    def _name_the_loss(cls, raw: Any) -> Any:
        raw = _Loss.spelled_out(raw)
        if isinstance(raw, Mapping):
            kind = raw.get("kind", "bce")
            if kind not in _LOSS_KINDS:
                raise ConfigError(
                    "train.loss.kind must be one of the allowed values",
                    repr(kind),
                    did_you_mean(kind, _LOSS_KINDS),
                )
            return {**raw, "kind": kind}
        return raw

    @property
    def max_epochs(self) -> float:
        """The most passes that are run."""
        if self.epochs != "auto":
            return self.epochs
        # Without stopping nothing decides; a decaying rate must know where it ends.
        return AUTO_EPOCHS if self.early_stopping and self.schedule.kind == "constant" else 1

    @property
    def stopping(self) -> EarlyStoppingConfig | None:
        """The rule by which epochs are stopped and the best one is kept; None: the last one is."""
        if self.early_stopping != "auto":
            return self.early_stopping
        if self.max_epochs == 1:
            return None
        # A decaying rate does its best work last.
        patience = 1 if self.schedule.kind == "constant" else math.ceil(self.max_epochs)
        return EarlyStoppingConfig(metric="log_loss", patience=patience)

    @field_validator("early_stopping", "cowclip", mode="before")
    @classmethod
    def _true_means_defaults(cls, raw: Any) -> Any:
        return {True: {}, False: None}.get(raw, raw) if isinstance(raw, bool) else raw

    @field_validator("epochs", "early_stopping", mode="before")
    @classmethod
    def _auto_is_the_only_word(cls, raw: Any) -> Any:
        if isinstance(raw, str) and raw != "auto" and not raw.isdecimal():
            raise ConfigError(
                'train.epochs is a number or "auto", train.early_stopping "auto", true, false or options',
                repr(raw),
                "Leave it out: both are auto then.",
            )
        return raw

    @field_validator("averaging", mode="before")
    @classmethod
    def _name_the_averaging(cls, raw: Any) -> Any:
        return {"kind": "none"} if raw in (None, False) else AveragingConfig.spelled_out(raw)

    @model_validator(mode="after")
    def _refuse_what_cannot_work(self) -> TrainConfig:
        if self.cowclip and self.embedding_optimizer == "adam":
            raise ConfigError(
                "CowClip clips the rows that a batch touched: it needs a row-sparse optimizer",
                "train.cowclip with train.embedding_optimizer=adam",
                "Set train.embedding_optimizer=lazy_adam.",
            )
        if self.embedding_initial_accumulator and self.embedding_optimizer in _WITHOUT_ACCUMULATOR:
            raise ConfigError(
                "an initial accumulator belongs to adagrad, rowwise_adagrad and ftrl",
                f"train.embedding_initial_accumulator={self.embedding_initial_accumulator} with "
                f"train.embedding_optimizer={self.embedding_optimizer}",
                "Leave it out, or set train.embedding_optimizer=adagrad.",
            )
        if self.tables_on == "host" and self.gradient_clip_norm is not None:
            raise ConfigError(
                "tables on the host are updated after the step: no global norm spans both",
                "train.tables_on=host with train.gradient_clip_norm",
                "Leave one of them out.",
            )
        if self.tables_on == "host" and self.precision == "float16":
            raise ConfigError(
                "loss scaling may skip a step, which tables on the host cannot",
                "train.tables_on=host with train.precision=float16",
                "Set train.precision=bfloat16.",
            )
        if self.embedding_l2 and self.embedding_optimizer == "adam":
            raise ConfigError(
                "L2 on touched rows needs a row-sparse optimizer",
                "train.embedding_l2 with train.embedding_optimizer=adam",
                "Set train.embedding_optimizer=lazy_adam.",
            )
        if self.cowclip and self.gradient_clip_norm is not None:
            raise ConfigError(
                "gradients are clipped one way: by row (cowclip) or by their global norm",
                "train.cowclip with train.gradient_clip_norm",
                "Leave one of them out.",
            )
        if self.tables_on == "host" and self.embedding_optimizer == "adam":
            raise ConfigError(
                "tables on the host are updated by row: they need a row-sparse optimizer",
                "train.tables_on=host with train.embedding_optimizer=adam",
                "Set train.embedding_optimizer=lazy_adam or adagrad.",
            )
        return self


def parse_train_config(raw: Mapping[str, Any] | TrainConfig | None) -> TrainConfig:
    """The door for configs from outside.

    Args:
        raw: options by name; None or {} for the defaults.

    Raises:
        ConfigError: an unknown option (with the nearest known one), a wrong type or value.
    """
    if isinstance(raw, TrainConfig):
        return raw
    if raw is not None and not isinstance(raw, Mapping):
        raise ConfigError(
            "train must be a mapping of options",
            repr(raw),
            "Write train: {global_batch_size: 512}.",
        )
    try:
        return TrainConfig.model_validate(dict(raw or {}))
    except ValidationError as error:
        raise config_error(error, TrainConfig.label) from None
