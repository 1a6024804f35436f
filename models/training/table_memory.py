"""Whether the embedding tables fit into memory: arithmetic, before anything is built."""

from __future__ import annotations

from models.config.model import ModelConfig
from models.config.train import TrainConfig
from models.layers.embedding_rows import field_rows
from pipeline.errors import ConfigError
from pipeline.memory import available_memory
from pipeline.records.encoded import EncodedSpec

__all__ = ["check_tables_fit", "table_bytes"]

_FLOAT_BYTES = 4
_SLOTS = {
    "adagrad": 1,
    "lazy_adam": 2,
    "ftrl": 2,
    "adam": 2,
}  # as large as the table; rowwise: a number a row


def table_bytes(spec: EncodedSpec, model: ModelConfig, train: TrainConfig) -> int:
    """What the fused table, its optimizer's slots and its average take at least.

    Args:
        spec: with the sizes of the vocabularies.
        model: dimension and compression.
        train: the tables' optimizer and averaging.
    """
    rows = field_rows(spec, model.embedding.compression).values()
    num_rows = sum({r.offset: r.num_rows for r in rows}.values())
    copies = 1 + _SLOTS.get(train.embedding_optimizer, 0) + (train.averaging.kind != "none")
    numbers = num_rows * model.embedding_dim * copies
    if train.embedding_optimizer == "rowwise_adagrad":
        numbers += num_rows
    return numbers * _FLOAT_BYTES


def check_tables_fit(spec: EncodedSpec, model: ModelConfig, train: TrainConfig) -> None:
    """Refuses what would end in the middle of its first allocation, or be killed by the kernel.

    Raises:
        ConfigError: the tables alone need more memory than there is.
    """
    needed, free = table_bytes(spec, model, train), available_memory()
    if free is None or needed <= free:
        return
    rows = field_rows(spec, model.embedding.compression)
    largest = max({r.offset: r for r in rows.values()}.values(), key=lambda r: r.num_rows)
    raise ConfigError(
        "the embedding tables and their optimizer must fit into memory",
        f"{needed:,} bytes for model.embedding_dim={model.embedding_dim} and "
        f"train.embedding_optimizer={train.embedding_optimizer}, of {free:,} available; the largest "
        f"feature is {largest.name} with {largest.num_rows:,} rows",
        "Set model.embedding.compression=quotient_remainder, a smaller model.embedding_dim, "
        "train.embedding_optimizer=rowwise_adagrad, train.averaging=none, or a larger `min_count` or smaller "
        "`max_vocab_size` of the feature in the schema; or use a machine with more memory.",
    )
