"""Tables that cannot fit are refused by arithmetic, with sizes, before anything is built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import models.training.table_memory as table_memory
from models.config.model import ModelConfig, parse_model_config
from models.config.train import parse_train_config
from models.training.table_memory import check_tables_fit, table_bytes
from pipeline.errors import ConfigError
from pipeline.memory import available_memory
from pipeline.records.encoded import EncodedSpec, IdFeature


def _spec(*sizes: int) -> EncodedSpec:
    found = tuple(IdFeature(f"c{i}", n) for i, n in enumerate(sizes))
    return EncodedSpec(numeric=(), categorical=found, sequences=(), images=())


def _model(**options: object) -> ModelConfig:
    return parse_model_config({"name": "dcn_v2", "embedding_dim": 16, **options})


@pytest.mark.parametrize(
    "optimizer, numbers",
    [("adagrad", 32), ("rowwise_adagrad", 17), ("lazy_adam", 48), ("ftrl", 48), ("adam", 48)],
)
def test_table_and_slots(optimizer: str, numbers: int) -> None:
    train = parse_train_config({"embedding_optimizer": optimizer, "averaging": "none"})
    assert table_bytes(_spec(1000, 24), _model(), train) == 1024 * numbers * 4
    averaged = parse_train_config({"embedding_optimizer": optimizer})
    assert table_bytes(_spec(1000, 24), _model(), averaged) == 1024 * (numbers + 16) * 4


def test_compression_counts_what_is_kept() -> None:
    compressed = _model(embedding={"compression": {"kind": "hash", "above": 1000, "rows": 100}})
    train = parse_train_config({"averaging": "none"})
    assert table_bytes(_spec(5000), compressed, train) == 101 * 32 * 4


def test_too_large_is_refused_with_sizes_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_memory, "available_memory", lambda: 1000 * 32 * 4)
    train = parse_train_config({"averaging": "none"})
    check_tables_fit(_spec(1000), _model(), train)
    with pytest.raises(ConfigError) as refused:
        check_tables_fit(_spec(900, 101), _model(), train)
    for phrase in ("128,128 bytes", "128,000 available", "c0", "compression", "embedding_dim"):
        assert phrase in str(refused.value)


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Path]:
    """A root folder with /proc/meminfo, and limits of control groups."""

    def make(**files: str) -> Path:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
        for name, content in files.items():
            path = tmp_path / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        return tmp_path

    return make


@pytest.mark.parametrize(
    "files, expected",
    [
        ({}, 4000 << 10),
        ({"memory_dot_max": "max", "memory_dot_current": "5", "memory_dot_stat": "x 1"}, 4000 << 10),
        (
            {
                "memory_dot_max": "9000",
                "memory_dot_current": "5000",
                "memory_dot_stat": "inactive_file 500\n",
            },
            4500,
        ),
        (
            {
                "memory__memory_dot_limit_in_bytes": "8000",
                "memory__memory_dot_usage_in_bytes": "5000",
                "memory__memory_dot_stat": "total_inactive_file 100\n",
            },
            3100,
        ),
    ],
    ids=["machine", "no limit", "cgroup 2", "cgroup 1"],
)  # fmt: skip
def test_available_memory(
    files: dict[str, str], expected: int, machine: Callable[..., Path]
) -> None:
    assert available_memory(machine(**files)) == expected


def test_a_system_that_does_not_say(tmp_path: Path) -> None:
    assert available_memory(tmp_path) is None


def test_this_machine_says() -> None:
    assert 1 << 20 < (available_memory() or 0) < 1 << 50
