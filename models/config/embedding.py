"""How the embedding table starts, and how it is kept small. Plain data, no TensorFlow."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from pipeline.errors import ConfigError
from pipeline.strict_config import StrictConfig

__all__ = ["DEFAULT_EMBEDDING", "NO_COMPRESSION", "CompressionConfig", "EmbeddingConfig"]

_ABOVE, _ROWS = 1_000_000, 250_000


class CompressionConfig(StrictConfig):
    """Fewer rows than ids, for features with huge vocabularies; a plain string means its kind.

    With id i > 0 and m = `rows`, the row of an id is

        hash                 (i - 1) mod m; ids that collide are one to the model
        quotient_remainder   r * (1 + q) elementwise, r the row (i - 1) mod m and q the row
                             (i - 1) div m of a second, small block: no two ids share both

    The missing id 0 keeps rows of its own. Ids are in order of frequency, so that the m most frequent
    ones never share a row. (Shi et al. 2019, arXiv 1909.02107: hashing trick in section 1, the
    multiplied pair in sections 2 and 3, here with q about 0 instead of about 1, so that every row
    starts by the same initializer and L2 draws a pair to r.)

    Attributes:
        kind: none, hash or quotient_remainder.
        above: features with more ids than this are compressed, the others never.
        rows: m, of each compressed feature.
    """

    label: ClassVar[str] = "model.embedding.compression"
    shorthand: ClassVar[str | None] = "kind"
    kind: Literal["none", "hash", "quotient_remainder"] = "none"
    above: int = Field(_ABOVE, ge=8)
    rows: int = Field(_ROWS, ge=4)

    @model_validator(mode="after")
    def _refuse_what_saves_nothing(self) -> CompressionConfig:
        is_default = (self.above, self.rows) == (_ABOVE, _ROWS)
        if self.kind == "none" and not is_default:
            raise ConfigError(
                "above and rows mean nothing without a kind of compression",
                f"{self.label}.kind=none with above={self.above}, rows={self.rows}",
                f"Set {self.label}.kind=quotient_remainder (or hash), or leave them out.",
            )
        if self.kind != "none" and 2 * self.rows > self.above:
            raise ConfigError(
                "a compressed feature has at most half as many rows as the smallest one has ids",
                f"{self.label}.rows={self.rows}, above={self.above}",
                f"Set rows={self.above // 2} or fewer, or above={2 * self.rows} or more.",
            )
        return self

    def applies_to(self, num_ids: int) -> bool:
        """Whether a feature with ids in [0, num_ids) is compressed."""
        return self.kind != "none" and num_ids > self.above


NO_COMPRESSION = CompressionConfig()


class EmbeddingConfig(StrictConfig):
    """The fused table.

    Attributes:
        initializer: distribution of a row's first weights: uniform in [-scale, scale], normal with
            deviation `scale`, or truncated_normal, the same without what is beyond 2 * scale.
        scale: spread of the initializer; 0.05 is Keras' own.
        compression: of huge vocabularies.
    """

    label: ClassVar[str] = "model.embedding"
    initializer: Literal["uniform", "normal", "truncated_normal"] = "uniform"
    scale: float = Field(0.05, gt=0)
    compression: CompressionConfig = NO_COMPRESSION


DEFAULT_EMBEDDING = EmbeddingConfig()
