"""Encoded images -> pixels, inside a graph."""

from __future__ import annotations

import tensorflow as tf

from pipeline.schema import ImageColumn

__all__ = ["decode_images", "decode_images_traced"]


def decode_images(encoded: tf.Tensor, feature: ImageColumn) -> tf.Tensor:
    """String [batch] -> uint8 [batch, H, W, C]; a missing image is black."""
    shape = (feature.height, feature.width, feature.channels)

    def one(data: tf.Tensor) -> tf.Tensor:
        def decode() -> tf.Tensor:
            image = tf.io.decode_image(data, channels=feature.channels, expand_animations=False)
            resized = tf.image.resize(image, shape[:2], method="bilinear")
            return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)

        pixels = tf.cond(tf.equal(data, ""), lambda: tf.zeros(shape, tf.uint8), decode)
        return tf.ensure_shape(pixels, shape)

    return tf.map_fn(one, encoded, fn_output_signature=tf.TensorSpec(shape, tf.uint8))


@tf.function(reduce_retracing=True)
def decode_images_traced(encoded: tf.Tensor, feature: ImageColumn) -> tf.Tensor:
    """`decode_images` for eager callers: the same graph as in an export."""
    return decode_images(encoded, feature)
