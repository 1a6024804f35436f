"""What an encoded row looks like: the one description that records, dataset and models share.

`FeatureTransform` turns raw columns into these tensors; `records` writes them; `dataset` reads them
back; a model is built from them. Nothing downstream needs the schema or the statistics to know a shape.

    numeric          float32 [batch, D]   one column per name in `EncodedSpec.numeric`
    ids              int32   [batch, F]   one column per name in `EncodedSpec.categorical`, in [0, vocab_size)
    sequence/<name>  int32   [batch, L]   left-aligned, padded with 0
    image/<name>     uint8   [batch, H, W, C]
    label            float32 [batch]      click (1) or not (0)
    weight           float32 [batch]      sample weight, 1 unless the schema says otherwise
    carry            float32 [batch, C]   columns that travel beside the rows and are never a model input

Id 0 is always "missing"; ids 1 .. num_oov are the hashed buckets of unseen values; the vocabulary
follows in its stored order.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

__all__ = [
    "MISSING_ID",
    "EncodedSpec",
    "IdFeature",
    "ImageFeature",
    "SequenceFeature",
    "model_inputs",
]

MISSING_ID = 0
_NOT_INPUTS = ("label", "weight", "carry")
_Tensor = TypeVar("_Tensor")


def model_inputs(encoded: Mapping[str, _Tensor]) -> dict[str, _Tensor]:
    """The tensors of an encoded batch that a model may see, by key; of any kind, specs too."""
    return {key: value for key, value in encoded.items() if key not in _NOT_INPUTS}


@dataclasses.dataclass(frozen=True)
class IdFeature:
    """A feature encoded as one id.

    Attributes:
        name: the feature's name in the schema.
        vocab_size: ids lie in [0, vocab_size): missing, unseen buckets and vocabulary together.
    """

    name: str
    vocab_size: int


@dataclasses.dataclass(frozen=True)
class SequenceFeature:
    """A feature encoded as a fixed-width row of ids, padded with 0 on the right.

    Attributes:
        name: the feature's name in the schema.
        vocab_size: ids lie in [0, vocab_size).
        max_length: the width L of its tensor.
        vocabulary_of: the feature whose vocabulary (and so whose embedding rows) it shares, or its own name.
    """

    name: str
    vocab_size: int
    max_length: int
    vocabulary_of: str


@dataclasses.dataclass(frozen=True)
class ImageFeature:
    """A feature decoded to pixels: uint8 [batch, height, width, channels]."""

    name: str
    height: int
    width: int
    channels: int


@dataclasses.dataclass(frozen=True)
class EncodedSpec:
    """Names, order and sizes of every encoded tensor, with the transform's fingerprint."""

    numeric: tuple[str, ...]
    categorical: tuple[IdFeature, ...]
    sequences: tuple[SequenceFeature, ...] = ()
    images: tuple[ImageFeature, ...] = ()
    carry: tuple[str, ...] = ()
    fingerprint: str = ""

    def to_json(self) -> str:
        """The spec as JSON text, the same bytes for the same spec."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> EncodedSpec:
        """The spec that `to_json` wrote."""
        raw: dict[str, Any] = json.loads(text)
        return cls(
            numeric=tuple(raw["numeric"]),
            categorical=tuple(IdFeature(**f) for f in raw["categorical"]),
            sequences=tuple(SequenceFeature(**f) for f in raw["sequences"]),
            images=tuple(ImageFeature(**f) for f in raw["images"]),
            carry=tuple(raw["carry"]),
            fingerprint=raw["fingerprint"],
        )
