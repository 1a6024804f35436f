"""Instance normalization."""

from __future__ import annotations

from typing import ClassVar, Literal

from models.norms.base import NORMS, AxisKind, Layer, NormConfig
from pipeline.errors import ConfigError

__all__ = ["InstanceNormConfig"]


@NORMS.add
class InstanceNormConfig(NormConfig):
    """Mean and variance of one row's fields or pixels per channel; not for units."""

    paper: ClassVar[str] = "Ulyanov et al. 2016, 1607.08022"
    kind: Literal["instance"] = "instance"

    def make_layer(self, axis_kind: AxisKind) -> Layer:
        """Keras' group normalization with a group per channel.

        Raises:
            ConfigError: of units, which is a constant.
        """
        from models.keras2 import keras

        self.check_width(axis_kind=axis_kind, width=0, where="a hidden layer")
        # groups=-1: a group per channel, which is instance normalization
        return keras.layers.GroupNormalization(groups=-1, axis=-1, epsilon=self.epsilon)

    def check_width(
        self, *, axis_kind: AxisKind, width: int, where: str, together: tuple[int, ...] = ()
    ) -> None:
        """Refuses units, whatever their number."""
        del width, together
        if axis_kind == "units":
            raise ConfigError(
                "instance normalization needs a field or pixel axis: on [batch, units] each group "
                "is one number and the output a constant",
                f"norm=instance on {where}",
                "Use layer or group, or normalize the embeddings only: model.norm.kind=instance "
                "model.norm.on_embeddings=true model.norm.on_hidden=false.",
            )

    def num_groups(self, width: int) -> int:
        """One per channel."""
        return width
