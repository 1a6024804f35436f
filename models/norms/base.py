"""What every normalization has: `NormConfig`, which reads as the kind that it names.

A new norm is a module in this folder: a class derived from `NormConfig`, its `kind`, the options that it
alone has, the widths it refuses and its layer, added with `@NORMS.add`. The docstring's first line is
its title. TensorFlow is imported when a layer is made.
"""

from __future__ import annotations

import abc
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeAlias

from pydantic import Field, SerializeAsAny, model_validator

from models.registry import Registry, Variant
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from models.keras2 import keras

    Layer: TypeAlias = keras.layers.Layer
else:
    Layer = Any

__all__ = [
    "AXIS_NOUNS",
    "NORMS",
    "AnyNorm",
    "AxisKind",
    "LastAxisNormConfig",
    "Layer",
    "NormConfig",
    "NormPlace",
    "NormPlacement",
]

AxisKind = Literal["units", "fields", "image"]
AXIS_NOUNS: dict[AxisKind, str] = {"units": "units", "fields": "dim", "image": "channels"}


class NormPlacement(StrEnum):
    """Where a hidden layer is normalized: Dense, norm, activation, or Dense, activation, norm."""

    BEFORE_ACTIVATION = "before_activation"
    AFTER_ACTIVATION = "after_activation"


NORMS: Registry[NormConfig] = Registry(
    "norm",
    label="model.norm",
    tag="kind",
    package="models.norms",
    holds="modules",
    default="layer",
    called="{} norm",
)


class NormConfig(Variant):
    """Which normalization, and where. A plain string stands for its kind: `model.norm=layer`.

    Class attributes:
        uses_batch_statistics: whether a row's logit in training depends on the other rows of its
            batch.
        changes_nothing: whether it is no normalization at all, and so needs no place.

    Attributes:
        kind: the normalization.
        placement: before or after the activation of a hidden layer.
        epsilon: added to the variance (or mean square); one value for every kind. Where the
            normalized numbers all but agree, 1 / sqrt(epsilon) multiplies their rounding.
        on_hidden: normalize the hidden layers (MLPs, attention, convolutions, mask blocks).
        on_embeddings: normalize the embeddings [batch, fields, dim] too, before the model sees
            them.
    """

    label: ClassVar[str] = "model.norm"
    family: ClassVar[Registry[NormConfig]] = NORMS
    uses_batch_statistics: ClassVar[bool] = False
    changes_nothing: ClassVar[bool] = False
    kind: str
    placement: NormPlacement = NormPlacement.BEFORE_ACTIVATION
    epsilon: float = Field(1e-5, gt=0, lt=1)
    on_hidden: bool = True
    on_embeddings: bool = False

    @abc.abstractmethod
    def make_layer(self, axis_kind: AxisKind) -> Layer:
        """A fresh layer that keeps the shape; models receive a function that makes them.

        Args:
            axis_kind: "units" for [batch, units], "fields" for [batch, fields, dim], "image" for
                [batch, height, width, channels].
        """

    def check_width(
        self, *, axis_kind: AxisKind, width: int, where: str, together: tuple[int, ...] = ()
    ) -> None:
        """Refuses a width that cannot be normalized, or whose output would be a constant.

        Args:
            axis_kind: as in `make_layer`.
            width: the length of the last axis.
            where: the option that sets the width, for the message.
            together: all widths that the same norm meets, so that the remedy suits them all.

        Raises:
            ConfigError: this norm has no use for that width.
        """

    def num_groups(self, width: int) -> int | None:
        """Into how many groups the channels are divided that are reduced over positions, too."""
        del width
        return None

    def check_positions(self, positions: int, width: int, where: str) -> None:
        """Refuses so few positions (fields, pixels) that the output would be a constant.

        Args:
            positions: how many fields or pixels one row has there.
            width: number of channels.
            where: what the positions are, for the message.

        Raises:
            ConfigError: a group of a single number.
        """
        groups = self.num_groups(width)
        if groups is not None and positions * width == groups:
            raise ConfigError(
                f"{self.kind} normalization needs more than one number to a group",
                f"{positions} position and {width // groups} channel to a group in {where}",
                "Use norm=layer or norm=none there.",
            )

    @model_validator(mode="after")
    def _refuse_what_would_change_nothing(self) -> NormConfig:
        if not (self.changes_nothing or self.on_hidden or self.on_embeddings):
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


AnyNorm = SerializeAsAny[NormConfig]
"""The type of a field that holds a norm of any kind: saved with the options of its kind."""


class NormPlace(NamedTuple):
    """One place of a model that is normalized; `where` is the option that sets its width."""

    where: str
    axis_kind: AxisKind
    width: int
    norm: NormConfig


class LastAxisNormConfig(NormConfig):
    """A norm that reduces the last axis of a row alone, and all axes of an image."""

    def check_width(
        self, *, axis_kind: AxisKind, width: int, where: str, together: tuple[int, ...] = ()
    ) -> None:
        """Refuses an axis of length 1."""
        del together
        if width == 1 and axis_kind != "image":
            raise ConfigError(
                f"{self.kind} normalization of an axis of length 1 gives a constant",
                f"{where} with {AXIS_NOUNS[axis_kind]}=1",
                f"Make {where} wider than 1, or use norm=none.",
            )
