"""The served graph: raw features in, probabilities out; transform, model and calibration in one.

    serving_default      every raw column by name: float32 [B] (NaN = missing), string [B] (empty = missing)
    compact              the same in matrices: numbers float32 [B, N], texts string [B, T], in the order of
                         the schema's inputs (and `images_<name>` string [B], where there are any)
    serialized_examples  examples: string [B], serialized tf.Example; an absent feature is missing
    classify, regress    TF Serving's own forms of the last one
    encode               inputs of compact -> the encoded tensors, for the transform parity check
    schema               rows: string [B] -> schema string [B], the schema as YAML: how a reader on another
                         machine is to read its files (separators, time formats, null markers)

Outputs: probability float32 [B], logit float32 [B] (calibrated: probability = sigmoid(logit)) and
model_fingerprint string [B]; classify gives classes and scores [B, 2], regress gives outputs [B].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import tensorflow as tf

from models.calibration import Calibration
from models.zoo.base import CTRModel
from pipeline.transform.feature_transform import FeatureTransform
from pipeline.transform.serialized import parse_examples

__all__ = ["SIGNATURES", "ServingModule"]

SIGNATURES = (
    "serving_default",
    "compact",
    "serialized_examples",
    "classify",
    "regress",
    "encode",
    "schema",
)


class ServingModule(tf.Module):
    """Transform, model and calibration as one exportable module.

    Args:
        transform: raw columns -> encoded tensors.
        model: encoded tensors -> raw logits; used in inference mode.
        calibration: raw logits -> calibrated logits (loss correction, down-sampling, residual).
        fingerprint: of the run; returned with every answer.
    """

    def __init__(
        self,
        transform: FeatureTransform,
        model: CTRModel,
        calibration: Calibration,
        fingerprint: str,
    ) -> None:
        super().__init__(name="clickparity")
        self.transform, self.model, self.calibration = transform, model, calibration
        self.fingerprint = fingerprint
        self._schema = transform.schema

    def logits(
        self,
        numbers: tf.Tensor,
        texts: tf.Tensor,
        images: Mapping[str, tf.Tensor] | None = None,
    ) -> tf.Tensor:
        """Stacked raw columns -> calibrated logits float32 [B]."""
        encoded = self.transform.encode(numbers, texts, images)
        return self.calibration.logits(self.model(encoded, training=False))

    def _answer(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "probability": tf.sigmoid(logits),
            "logit": logits,
            "model_fingerprint": tf.fill(tf.shape(logits), self.fingerprint),
        }

    def _parse(self, examples: tf.Tensor) -> tf.Tensor:
        """Serialized tf.Example [B] -> calibrated logits [B]."""
        schema = self._schema
        raw = parse_examples(examples, schema)
        numbers, texts = self.transform.stack(raw)
        return self.logits(numbers, texts, {c: raw[c] for c in schema.input_images})

    def _input_specs(self) -> tuple[dict[str, tf.TensorSpec], dict[str, tf.TensorSpec]]:
        """(inputs of serving_default, of compact and encode) by name, for any batch size."""
        schema = self._schema
        by_name: dict[str, tf.TensorSpec] = {}
        for column in (*schema.input_numbers, *schema.input_texts, *schema.input_images):
            kind = tf.float32 if column in schema.input_numbers else tf.string
            name = schema.input_name(column)
            by_name[name] = tf.TensorSpec([None], kind, name=name)
        matrices: dict[str, tf.TensorSpec] = {}
        if schema.input_numbers:
            shape = [None, len(schema.input_numbers)]
            matrices["numbers"] = tf.TensorSpec(shape, tf.float32, name="numbers")
        if schema.input_texts:
            shape = [None, len(schema.input_texts)]
            matrices["texts"] = tf.TensorSpec(shape, tf.string, name="texts")
        for column in schema.input_images:
            name = schema.image_input_name(column)
            matrices[name] = tf.TensorSpec([None], tf.string, name=name)
        return by_name, matrices

    def _matrices(
        self, inputs: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, dict[str, tf.Tensor]]:
        """(numbers, texts, images by column) from the inputs of compact and encode."""
        schema = self._schema
        rows = tf.shape(next(iter(inputs.values())))[0]
        numbers = inputs.get("numbers", tf.zeros([rows, 0], tf.float32))
        texts = inputs.get("texts", tf.zeros([rows, 0], tf.string))
        images = {c: inputs[schema.image_input_name(c)] for c in schema.input_images}
        return numbers, texts, images

    def signatures(self) -> dict[str, Callable[..., dict[str, tf.Tensor]]]:
        """Concrete functions by signature name, for any batch size."""
        schema = self._schema
        description = schema.to_yaml()

        @tf.function
        def serving_default(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            columns = (*schema.input_numbers, *schema.input_texts, *schema.input_images)
            raw = {column: inputs[schema.input_name(column)] for column in columns}
            numbers, texts = self.transform.stack(raw)
            return self._answer(
                self.logits(numbers, texts, {c: raw[c] for c in schema.input_images})
            )

        @tf.function
        def compact(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._answer(self.logits(*self._matrices(inputs)))

        @tf.function
        def encode(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            return self.transform.encode(*self._matrices(inputs))

        @tf.function
        def serialized_examples(examples: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._answer(self._parse(examples))

        @tf.function
        def describe(rows: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"schema": tf.fill(tf.shape(rows), description)}

        @tf.function
        def classify(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            probability = tf.sigmoid(self._parse(inputs))
            classes = tf.tile(tf.constant([["0", "1"]]), [tf.shape(probability)[0], 1])
            return {
                "classes": classes,
                "scores": tf.stack([1.0 - probability, probability], axis=1),
            }

        @tf.function
        def regress(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"outputs": tf.sigmoid(self._parse(inputs))}

        by_name, matrices = self._input_specs()
        serialized = tf.TensorSpec([None], tf.string, name="examples")
        inputs = tf.TensorSpec([None], tf.string, name="inputs")
        return {
            "serving_default": serving_default.get_concrete_function(**by_name),
            "compact": compact.get_concrete_function(**matrices),
            "serialized_examples": serialized_examples.get_concrete_function(serialized),
            "classify": classify.get_concrete_function(inputs),
            "regress": regress.get_concrete_function(inputs),
            "encode": encode.get_concrete_function(**matrices),
            "schema": describe.get_concrete_function(tf.TensorSpec([None], tf.string, name="rows")),
        }
