"""The normalizations and where they go: `NormConfig`. Plain data, no TensorFlow."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.errors import ConfigError
from pipeline.strict_config import StrictConfig

__all__ = ["NORM_TITLES", "AxisKind", "NormConfig", "NormKind", "NormPlacement", "check_norm"]

AxisKind = Literal["units", "fields", "image"]


class NormKind(StrEnum):
    """The normalizations; `NORM_TITLES` has a line on each."""

    NONE = "none"
    BATCH = "batch"
    LAYER = "layer"
    INSTANCE = "instance"
    GROUP = "group"
    RMS = "rms"
    VARIANCE_ONLY = "variance_only"


class NormPlacement(StrEnum):
    """Where a hidden layer is normalized: Dense, norm, activation, or Dense, activation, norm."""

    BEFORE_ACTIVATION = "before_activation"
    AFTER_ACTIVATION = "after_activation"


class NormConfig(StrictConfig):
    """Which normalization, and where. A plain string stands for its kind: `model.norm=layer`.

    The axes: on [batch, units] layer, rms and variance_only reduce the units of one row, group a
    part of them. On [batch, fields, dim] layer, rms and variance_only reduce the dim of one field;
    group and instance treat dim as channels and also reduce the fields; batch keeps one statistic
    per dim. On an image [batch, height, width, channels] layer, rms and variance_only reduce one
    whole image.

    Attributes:
        kind: the normalization.
        placement: before or after the activation of a hidden layer.
        epsilon: added to the variance (or mean square); one value for every kind. Where the
            normalized numbers all but agree, 1 / sqrt(epsilon) multiplies their rounding.
        momentum: batch only; the share of the old moving statistic that a step keeps.
        synchronized: batch only; False (the default) means each replica normalizes by its own part
            of the global batch, so the result depends on the number of replicas; True averages over
            all of them.
        groups: group only; must divide what it normalizes.
        on_hidden: normalize the hidden layers (MLPs, attention, convolutions, mask blocks).
        on_embeddings: normalize the embeddings [batch, fields, dim] too, before the model sees
            them.
    """

    label: ClassVar[str] = "model.norm"
    kind: NormKind = NormKind.LAYER
    placement: NormPlacement = NormPlacement.BEFORE_ACTIVATION
    epsilon: float = Field(1e-5, gt=0, lt=1)
    momentum: float = Field(0.99, ge=0, lt=1)
    synchronized: bool = False
    groups: int = Field(8, ge=1)
    on_hidden: bool = True
    on_embeddings: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, raw: Any) -> Any:
        return {"kind": raw.lower()} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _refuse_what_would_change_nothing(self) -> NormConfig:
        owners = {
            "synchronized": (NormKind.BATCH, "no other has statistics to share"),
            "momentum": (NormKind.BATCH, "no other has moving statistics"),
            "groups": (NormKind.GROUP, "no other divides its channels"),
        }
        for name, (owner, why) in owners.items():
            value = getattr(self, name)
            if self.kind is not owner and value != type(self).model_fields[name].default:
                raise ConfigError(
                    f"model.norm.{name} belongs to {owner} norm: {why}",
                    f"kind={self.kind}, {name}={value}",
                    f"Leave it out, or set model.norm.kind={owner}.",
                )
        if self.kind is not NormKind.NONE and not (self.on_hidden or self.on_embeddings):
            raise ConfigError(
                "a normalization needs a place: model.norm.on_hidden or model.norm.on_embeddings",
                f"kind={self.kind}, on_hidden=False, on_embeddings=False",
                "Set one of the two, or model.norm=none.",
            )
        if not self.on_hidden and self.placement is not NormPlacement.BEFORE_ACTIVATION:
            raise ConfigError(
                "model.norm.placement is about hidden layers: embeddings have no activation",
                f"on_hidden=False, placement={self.placement}",
                "Leave it out, or set model.norm.on_hidden=true.",
            )
        return self

    @property
    def uses_batch_statistics(self) -> bool:
        """Whether a row's logit in training depends on the other rows of its batch."""
        return self.kind is NormKind.BATCH


NORM_TITLES: dict[NormKind, str] = {
    NormKind.NONE: "no normalization",
    NormKind.BATCH: "batch statistics in training, moving ones in serving: the scores differ",
    NormKind.LAYER: "mean and variance of one row's units (Ba et al. 2016)",
    NormKind.INSTANCE: "mean and variance of one row's fields or pixels per channel; not for units",
    NormKind.GROUP: "mean and variance of one row within groups of channels (Wu and He 2018)",
    NormKind.RMS: "root mean square of one row's units, no centering (Zhang and Sennrich 2019)",
    NormKind.VARIANCE_ONLY: "deviation of one row's units, no centering or gain (Wang et al. 2020)",
}


def check_norm(
    norm: NormConfig,
    *,
    axis_kind: AxisKind,
    width: int,
    where: str,
    together: tuple[int, ...] = (),
) -> None:
    """Refuses a normalization that cannot be computed, or whose output would be a constant.

    Args:
        norm: the normalization.
        axis_kind: "units" for [batch, units], "fields" for [batch, fields, dim], "image" for
            [batch, height, width, channels].
        width: the length of the last axis.
        where: the option that sets the width, for the message.
        together: all widths that the same norm meets, so that the remedy suits them all.

    Raises:
        ConfigError: instance on units; layer, rms or variance_only over an axis of length 1; groups
            that do not divide the width, or leave one number to a group of units.
    """
    kind, noun = norm.kind, {"units": "units", "fields": "dim", "image": "channels"}[axis_kind]
    if kind is NormKind.INSTANCE and axis_kind == "units":
        raise ConfigError(
            "instance normalization needs a field or pixel axis: on [batch, units] each group is "
            "one number and the output a constant",
            f"norm=instance on {where}",
            "Use layer or group, or normalize the embeddings only: model.norm.kind=instance "
            "model.norm.on_embeddings=true model.norm.on_hidden=false.",
        )
    reduces_last_axis = kind in (NormKind.LAYER, NormKind.RMS, NormKind.VARIANCE_ONLY)
    if reduces_last_axis and width == 1 and axis_kind != "image":
        raise ConfigError(
            f"{kind} normalization of an axis of length 1 gives a constant",
            f"{where} with {noun}=1",
            f"Make {where} wider than 1, or use norm=none.",
        )
    if kind is NormKind.GROUP and (
        width % norm.groups or (axis_kind == "units" and width == norm.groups)
    ):
        rule = (
            f"groups must divide {noun}"
            if width % norm.groups
            else f"groups must leave several {noun} to a group, or the output is a constant"
        )
        groups = _suggest_groups((width, *together), norm.groups)
        raise ConfigError(
            rule,
            f"groups={norm.groups}, {noun}={width}",
            (f"Try groups={groups}." if groups else "Use norm=none, or make it wider.")
            + f" ({where})",
        )


def _suggest_groups(widths: tuple[int, ...], at_most: int) -> int:
    """The most groups that divide every width and are fewer than each; 0 when there are none."""
    common = math.gcd(*widths)
    candidates = range(1, min(at_most + 1, *widths))
    return max((groups for groups in candidates if common % groups == 0), default=0)
