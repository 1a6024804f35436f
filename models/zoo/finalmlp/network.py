"""FinalMLP: two MLP streams with gated inputs and a bilinear fusion."""

from __future__ import annotations

import math

import tensorflow as tf

from models.keras2 import keras
from models.layers.tabular import FieldFeatures
from models.layers.two_stream import BilinearFusion, FeatureGate
from models.zoo.base import CTRModel, Inputs
from models.zoo.finalmlp import FinalMLPConfig
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec
from pipeline.strict_config import did_you_mean

__all__ = ["FinalMLP"]

MAX_DEFAULT_HEADS = 200  # BARS's best on Criteo


class FinalMLP(CTRModel):
    """FinalMLP.

    x = flatten of the fields [batch, (D + F) dim]
    x_s = x * 2 sigmoid(gate_s(context_s)), s = 1, 2; o_s = MLP_s(x_s)
    logit = b + w1 . o1 + w2 . o2 + sum_h o1_h^T W_h o2_h

    A context is the flattened fields of the named features (numeric or categorical), or a learned
    constant. The authors' code gives the gates embedding tables of their own; here they read the
    model's.

    Paper: Mao et al. 2023, "FinalMLP", arXiv 2304.00902. Its own normalization: batch, in both
    streams (BARS's best on Criteo). Widths and heads as there: 400-400-400, 1000, up to 200 heads.
    """

    def __init__(
        self, config: FinalMLPConfig, spec: EncodedSpec, *, dropout: float | None = None
    ) -> None:
        super().__init__(config, spec, dropout=dropout)
        options = config.final_mlp
        self.features = self.make_features(FieldFeatures)
        self.contexts = [
            field_positions(spec, names, option)
            for names, option in (
                (options.first_context, "model.final_mlp.first_context"),
                (options.second_context, "model.final_mlp.second_context"),
            )
        ]
        self.gates = [
            FeatureGate(
                options.selection_units,
                constant_dim=None if positions else config.embedding_dim,
                name=f"gate_{i}",
            )
            for i, positions in enumerate(self.contexts)
            if options.feature_selection
        ]
        self.flatten = keras.layers.Flatten()
        self.streams = [
            self.make_mlp(config.hidden_units, name="stream_0"),
            self.make_mlp(options.second_units, name="stream_1"),
        ]
        common = math.gcd(config.hidden_units[-1], options.second_units[-1])
        most_heads = max(d for d in range(1, MAX_DEFAULT_HEADS + 1) if common % d == 0)
        self.fusion = BilinearFusion(options.num_heads or most_heads, name="fusion")

    def compute_logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """Logits [batch, 1]."""
        fields = self.features(inputs, training=training)
        x = self.flatten(fields)
        gated = [x, x]
        for i, gate in enumerate(self.gates):
            positions = self.contexts[i]
            context = self.flatten(tf.gather(fields, positions, axis=1)) if positions else None
            gated[i] = gate(x, context)
        first, second = (
            stream(each, training=training)
            for stream, each in zip(self.streams, gated, strict=True)
        )
        return self.fusion((first, second))


def field_positions(spec: EncodedSpec, names: tuple[str, ...], option: str) -> list[int]:
    """Where the named features lie on the fields axis of `FieldFeatures`.

    Raises:
        ConfigError: a name that the data set does not have.
    """
    known = [*spec.numeric, *(f.name for f in spec.categorical), *(s.name for s in spec.sequences)]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{option} names features of the data set", repr(name), did_you_mean(name, known)
            )
    return [known.index(name) for name in names]
