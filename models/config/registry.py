"""What can be chosen: the models, and the options that belong to one model.

Plain data: no TensorFlow is imported, so that `clickparity models` answers at once and a config is
refused before a cluster starts. `models.config.model.ModelConfig` is one choice out of all this.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from models.config.norm import NormConfig, NormKind
from pipeline.strict_config import StrictConfig

__all__ = [
    "MODELS",
    "AttentionConfig",
    "CrossConfig",
    "DlrmConfig",
    "DstnConfig",
    "FinalMLPConfig",
    "ImageConfig",
    "MaskConfig",
    "ModelInfo",
    "ModelName",
]

Width = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=1)]


class CrossConfig(StrictConfig):
    """Cross layers of dcn and dcn_v2.

    Attributes:
        num_layers: number of cross layers; the polynomial degree minus one.
        projection_dim: dcn_v2; rank of W = U V, None for a full matrix. The paper advises width /
            4.
        num_experts: dcn_v2; above 1 a gated mixture of low-rank experts (needs projection_dim).
        structure: dcn_v2; cross and deep network beside each other, or the deep one on top.
    """

    label: ClassVar[str] = "model.cross"
    num_layers: Count = 3
    projection_dim: Width | None = None
    num_experts: Count = 1
    structure: Literal["parallel", "stacked"] = "parallel"


class AttentionConfig(StrictConfig):
    """Interacting layers of autoint: multi-head self-attention over the fields.

    Attributes:
        num_layers: number of interacting layers.
        num_heads: heads per layer.
        head_dim: width of one head; a layer's output has num_heads * head_dim channels.
        residual: add a linear map of the layer's input before the ReLU.
    """

    label: ClassVar[str] = "model.attention"
    num_layers: Count = 3
    num_heads: Count = 2
    head_dim: Width = 32
    residual: bool = True


class DstnConfig(StrictConfig):
    """Auxiliary ad sequences of dstn.

    Attributes:
        aggregation: sum pooling (DSTN-P), self-attention (DSTN-S) or interactive attention
            (DSTN-I).
        auxiliary: one entry per kind of auxiliary ad (contextual, clicked, unclicked): the
            sequences whose embeddings, side by side, describe one such ad. Empty: every sequence is
            a kind of its own.
        target: the categorical features that describe the target ad. Empty: those whose vocabulary
            the auxiliary sequences share.
        attention_units: hidden width of the attention network.
    """

    label: ClassVar[str] = "model.dstn"
    aggregation: Literal["pooling", "self_attention", "interactive"] = "interactive"
    auxiliary: tuple[tuple[str, ...], ...] = ()
    target: tuple[str, ...] = ()
    attention_units: Width = 128


class ImageConfig(StrictConfig):
    """The convolutional network of ad_image.

    Attributes:
        filters: channels of each 3x3 convolution; every one is followed by 2x2 max pooling while it
            fits.
        embedding_dim: width of the image's embedding.
        norm: normalization inside the convolutional network; None takes model.norm.
    """

    label: ClassVar[str] = "model.image"
    filters: tuple[Width, ...] = Field((16, 32, 64), min_length=1)
    embedding_dim: Width = 32
    norm: NormConfig | None = None


class DlrmConfig(StrictConfig):
    """Bottom network and interaction of dlrm.

    Attributes:
        bottom_units: hidden widths between the numeric features and their vector of embedding_dim.
        self_interaction: also take each vector's product with itself.
    """

    label: ClassVar[str] = "model.dlrm"
    bottom_units: tuple[Width, ...] = (512, 256, 64)
    self_interaction: bool = False


class MaskConfig(StrictConfig):
    """Mask blocks of masknet.

    Attributes:
        structure: serial (each block on the one before; its widths are hidden_units) or parallel
            (blocks beside each other on the embeddings, hidden_units on top).
        num_blocks: parallel only; number of blocks.
        block_units: parallel only; output width of a block.
        reduction_ratio: width of a mask's hidden layer over the width of the mask.
    """

    label: ClassVar[str] = "model.mask"
    structure: Literal["serial", "parallel"] = "serial"
    num_blocks: Count = 3
    block_units: Width = 64
    reduction_ratio: float = Field(0.2, gt=0)


class FinalMLPConfig(StrictConfig):
    """Second stream, feature selection and fusion of finalmlp; hidden_units is the first stream.

    Attributes:
        second_units: hidden widths of the second stream.
        num_heads: heads of the bilinear fusion; must divide the last width of both streams. None
            takes as many as divide both, at most 200.
        feature_selection: gate each stream's input by its own context features.
        selection_units: hidden widths of the gates.
        first_context: features that the first gate reads; empty means a learned constant.
        second_context: the same for the second gate.
    """

    label: ClassVar[str] = "model.final_mlp"
    second_units: tuple[Width, ...] = Field((1000,), min_length=1)
    num_heads: Count | None = None
    feature_selection: bool = True
    selection_units: tuple[Width, ...] = (800,)
    first_context: tuple[str, ...] = ()
    second_context: tuple[str, ...] = ()


class ModelName(StrEnum):
    """The registered models; `MODELS` has a line on each."""

    WIDE_DEEP = "wide_deep"
    DEEPFM = "deepfm"
    DCN = "dcn"
    DCN_V2 = "dcn_v2"
    AUTOINT = "autoint"
    DSTN = "dstn"
    AD_IMAGE = "ad_image"
    DLRM = "dlrm"
    MASKNET = "masknet"
    FINALMLP = "finalmlp"


@dataclasses.dataclass(frozen=True)
class ModelInfo:
    """One registered model.

    Attributes:
        title: a line for the listing.
        paper: authors, year, arXiv number.
        paper_norm: the normalization that the paper itself uses.
        module: where its class lives, below models.zoo.
        class_name: the class in that module.
        options: the field of ModelConfig that only some models have, or None.
        unused_options: fields of those options that mean nothing to this model.
    """

    title: str
    paper: str
    paper_norm: NormKind
    module: str
    class_name: str
    options: str | None = None
    unused_options: tuple[str, ...] = ()


MODELS: dict[ModelName, ModelInfo] = {
    ModelName.WIDE_DEEP: ModelInfo(
        "linear model plus MLP",
        "Cheng et al. 2016, 1606.07792",
        NormKind.NONE,
        "wide_deep",
        "WideDeep",
    ),
    ModelName.DEEPFM: ModelInfo(
        "factorization machine plus MLP",
        "Guo et al. 2017, 1703.04247",
        NormKind.NONE,
        "deepfm",
        "DeepFM",
    ),
    ModelName.DCN: ModelInfo(
        "vector cross network beside an MLP",
        "Wang et al. 2017, 1708.05123",
        NormKind.BATCH,
        "dcn",
        "DCN",
        "cross",
        ("projection_dim", "num_experts", "structure"),
    ),
    ModelName.DCN_V2: ModelInfo(
        "matrix cross network (full, low-rank, mixture) with an MLP",
        "Wang et al. 2021, 2008.13535",
        NormKind.NONE,
        "dcn_v2",
        "DCNv2",
        "cross",
    ),
    ModelName.AUTOINT: ModelInfo(
        "self-attention over the fields, plus an MLP unless hidden_units is empty",
        "Song et al. 2019, 1810.11921",
        NormKind.NONE,
        "autoint",
        "AutoInt",
        "attention",
    ),
    ModelName.DSTN: ModelInfo(
        "target ad with contextual, clicked and unclicked ad sequences",
        "Ouyang et al. 2019, 1906.03776",
        NormKind.NONE,
        "dstn",
        "DSTN",
        "dstn",
    ),
    ModelName.AD_IMAGE: ModelInfo(
        "small CNN on the creative joined to the tabular features",
        "Chen et al. 2016, 1609.06018",
        NormKind.BATCH,
        "ad_image",
        "AdImage",
        "image",
    ),
    ModelName.DLRM: ModelInfo(
        "pairwise dot products of embeddings and a bottom MLP",
        "Naumov et al. 2019, 1906.00091",
        NormKind.NONE,
        "dlrm",
        "DLRM",
        "dlrm",
    ),
    ModelName.MASKNET: ModelInfo(
        "instance-guided masks on embeddings and hidden layers",
        "Wang et al. 2021, 2102.07619",
        NormKind.LAYER,
        "masknet",
        "MaskNet",
        "mask",
    ),
    ModelName.FINALMLP: ModelInfo(
        "two MLP streams with feature gates and bilinear fusion",
        "Mao et al. 2023, 2304.00902",
        NormKind.BATCH,
        "finalmlp",
        "FinalMLP",
        "final_mlp",
    ),
}
