"""DSTN: the target ad with the ads around it and the ads that the user clicked or passed over."""

from __future__ import annotations

import tensorflow as tf

from models.keras2 import keras
from models.layers.ad_attention import AdAggregation
from models.layers.feature_embedding import make_embedding
from models.zoo.base import CTRModel, Inputs
from models.zoo.dstn import DSTNConfig
from pipeline.errors import ConfigError
from pipeline.records.encoded import EncodedSpec
from pipeline.strict_config import did_you_mean

__all__ = ["DSTN"]


class DSTN(CTRModel):
    """Deep Spatio-Temporal Network.

    x_t = [numeric, embeddings] of the row [batch, T]; sequences that describe no ad are pooled into
    it x_ki = [embeddings of ad i] of auxiliary kind k (contextual, clicked, unclicked) [batch, L,
    A_k] x_k = sum_i a_ki x_ki, by `AdAggregation`; interactive weights see the target's embeddings
    and x_ki v = [x_t, x_1, x_2, ...]; logit = w . MLP(v) + b

    model.norm.on_embeddings normalizes the row's fields, not the ads of the sequences.
    The paper fuses by V_t x_t + V_1 x_1 + ... + b before its MLP, which is the MLP's first matrix
    cut into blocks. Each auxiliary kind has an attention network of its own, as there.

    Paper: Ouyang et al. 2019, "Deep Spatio-Temporal Neural Networks for Click-Through Rate
    Prediction", arXiv 1906.03776. Its own normalization: none (dropout).
    """

    def __init__(
        self, config: DSTNConfig, spec: EncodedSpec, *, dropout: float | None = None
    ) -> None:
        super().__init__(config, spec, dropout=dropout)
        options = config.dstn
        self.auxiliary = options.auxiliary or tuple((s.name,) for s in spec.sequences)
        self._check_auxiliary()
        names = [*(f.name for f in spec.categorical), *(s.name for s in spec.sequences)]
        used = {name for ads in self.auxiliary for name in ads}
        self.row_fields = [i for i, name in enumerate(names) if name not in used]
        self.target_fields = [names.index(name) for name in self._target_names(options.target)]
        if options.aggregation == "interactive" and not self.target_fields:
            raise ConfigError(
                "interactive attention needs a categorical feature that describes the target ad",
                "a data set with none",
                "Declare one in the schema, or set model.dstn.aggregation=self_attention.",
            )
        self.embedding = make_embedding(
            spec, config.embedding_dim, config.embedding, name="embedding"
        )
        self.embedding_norm = self.embedding_norm_factory()()
        self.aggregations = [
            AdAggregation(options.aggregation, options.attention_units, name=f"auxiliary_{i}")
            for i in range(len(self.auxiliary))
        ]
        self.mlp = self.make_mlp(config.hidden_units, name="mlp")
        self.head = keras.layers.Dense(1, name="head")

    def _check_auxiliary(self) -> None:
        lengths = {sequence.name: sequence.max_length for sequence in self.spec.sequences}
        if not self.auxiliary:
            raise ConfigError(
                "dstn needs a sequence feature: the contextual, clicked or unclicked ads",
                "a data set with none",
                "Declare a feature of kind sequence in the schema, or set model.name=dcn_v2.",
            )
        for ads in self.auxiliary:
            for name in ads:
                if name not in lengths:
                    raise ConfigError(
                        "model.dstn.auxiliary names sequence features of the data set",
                        repr(name),
                        did_you_mean(name, lengths),
                    )
            if len({lengths[name] for name in ads}) != 1:
                raise ConfigError(
                    "sequences that describe the same ads must have the same length",
                    ", ".join(f"{name}: {lengths[name]}" for name in ads) or "no sequence",
                    "Set the same max_length in the schema, or list them apart.",
                )

    def _target_names(self, chosen: tuple[str, ...]) -> tuple[str, ...]:
        """The categorical features that describe the target ad."""
        categorical = [feature.name for feature in self.spec.categorical]
        for name in chosen:
            if name not in categorical:
                raise ConfigError(
                    "model.dstn.target names categorical features of the data set",
                    repr(name),
                    did_you_mean(name, categorical),
                )
        shared = {s.vocabulary_of for s in self.spec.sequences if s.name != s.vocabulary_of}
        return chosen or tuple(n for n in categorical if n in shared) or tuple(categorical)

    def compute_logits(self, inputs: Inputs, training: bool | None) -> tf.Tensor:
        """Logits [batch, 1]."""
        fields = self.embedding_norm(self.embedding(inputs), training=training)
        target = flatten_fields(fields, self.target_fields)
        parts = [flatten_fields(fields, self.row_fields)]
        if self.spec.numeric:
            parts.append(inputs["numeric"])
        for ads_of_kind, aggregation in zip(self.auxiliary, self.aggregations, strict=True):
            embedded = [self.embedding.embed_sequence(inputs, name) for name in ads_of_kind]
            ads = tf.concat([ads for ads, _ in embedded], axis=2)  # [batch, L, dim * sequences]
            # an ad is there as soon as one of the sequences that describe it has an id
            mask = tf.reduce_any(tf.stack([mask for _, mask in embedded]), axis=0)
            parts.append(aggregation(target, ads, mask))
        return self.head(self.mlp(tf.concat(parts, axis=1), training=training))


def flatten_fields(fields: tf.Tensor, positions: list[int]) -> tf.Tensor:
    """The chosen fields side by side: [batch, fields, dim] to [batch, positions * dim]."""
    chosen = tf.gather(fields, tf.constant(positions, tf.int32), axis=1)
    return tf.reshape(chosen, [tf.shape(fields)[0], len(positions) * fields.shape[2]])
