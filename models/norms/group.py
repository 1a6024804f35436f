"""Group normalization."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from models.norms.base import (
    AXIS_NOUNS,
    NORMS,
    AxisKind,
    NormConfig,
    check_groups_of_positions,
)
from models.registry import Paper
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from models.keras2 import keras

__all__ = ["GroupNormConfig"]


@NORMS.add
class GroupNormConfig(NormConfig):
    """Mean and variance within groups of one row's units, or of its dims (channels) and fields (pixels).

    Attributes:
        groups: group only; must divide what it normalizes.
    """

    title: ClassVar[str] = "mean and variance of one row within groups of channels"
    paper: ClassVar[Paper | None] = Paper(2018, "1803.08494", "Wu and He")
    kind: Literal["group"] = "group"
    groups: int = Field(8, ge=1)

    def make_layer(self, axis_kind: AxisKind) -> keras.layers.Layer:
        """Keras' own."""
        from models.keras2 import keras

        del axis_kind
        return keras.layers.GroupNormalization(groups=self.groups, axis=-1, epsilon=self.epsilon)

    def check_width(
        self, *, axis_kind: AxisKind, width: int, where: str, together: tuple[int, ...] = ()
    ) -> None:
        """Refuses groups that do not divide the width, or leave one number to a group of units."""
        noun = AXIS_NOUNS[axis_kind]
        if width % self.groups:
            rule = f"groups must divide {noun}"
        elif axis_kind == "units" and width == self.groups:
            rule = f"groups must leave several {noun} to a group, or the output is a constant"
        else:
            return
        groups = _suggest_groups((width, *together), self.groups)
        remedy = f"Try groups={groups}." if groups else "Use norm=none, or make it wider."
        raise ConfigError(rule, f"groups={self.groups}, {noun}={width}", f"{remedy} ({where})")

    def check_positions(self, positions: int, width: int, where: str) -> None:
        """Refuses one position with a group per channel."""
        check_groups_of_positions(
            self.kind, groups=self.groups, positions=positions, width=width, where=where
        )


def _suggest_groups(widths: tuple[int, ...], at_most: int) -> int:
    """The most groups that divide every width and are fewer than each; 0 when there are none."""
    common = math.gcd(*widths)
    candidates = range(1, min(at_most + 1, *widths))
    return max((groups for groups in candidates if common % groups == 0), default=0)
