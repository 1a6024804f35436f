"""clickparity: CTR models that score in production exactly as they scored in training.

The steps of the command line as functions: paths and plain values in, directories and reports out.

    import clickparity

    clickparity.synthesize("log", rows=10_000, ctr=0.2)
    data = clickparity.preprocess("log/*.csv", "data", schema="synthetic")
    settings = ["model.norm=layer", "train.global_batch_size=256", "train.learning_rate=0.01"]
    run = clickparity.train(data, "run", settings=settings)
    metrics = clickparity.evaluate(run)
    parity = clickparity.prove(run)
    clickparity.publish(run, "models", "ctr")
    model = clickparity.load_model("models/ctr")
    probability = model({name: [None] for name in model.inputs})

Importing it imports nothing else; each name loads what it needs when it is first used. The stable
interface is what `__all__` lists; the packages below it (`pipeline`, `models`, `serving`, `jobs`) may
change between versions. See `clickparity.own_packages` for why those are not subpackages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clickparity.api import (
        evaluate,
        load_model,
        preprocess,
        prove,
        publish,
        synthesize,
        train,
    )
    from clickparity.scoring_model import ScoringModel
    from models.run_directory import RunDirectory
    from pipeline.errors import ClickparityError, ConfigError, DataError, GateError
    from pipeline.records.data_directory import DataDirectory
    from pipeline.schema import FeatureSchema
    from serving.client.client import PredictClient as Client

    __version__: str

__all__ = [
    "ClickparityError",
    "Client",
    "ConfigError",
    "DataDirectory",
    "DataError",
    "FeatureSchema",
    "GateError",
    "RunDirectory",
    "ScoringModel",
    "__version__",
    "evaluate",
    "load_model",
    "preprocess",
    "prove",
    "publish",
    "synthesize",
    "train",
]

_ELSEWHERE = {
    "ClickparityError": "pipeline.errors",
    "Client": "serving.client.client:PredictClient",
    "ConfigError": "pipeline.errors",
    "DataDirectory": "pipeline.records.data_directory",
    "DataError": "pipeline.errors",
    "FeatureSchema": "pipeline.schema",
    "GateError": "pipeline.errors",
    "RunDirectory": "models.run_directory",
    "ScoringModel": "clickparity.scoring_model",
}
"""Where a name is defined: "module" or "module:name there"; every other one in clickparity.api."""


def __getattr__(name: str) -> Any:
    """Loads a public name on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        value: Any = _version()
    else:
        from importlib import import_module

        from clickparity.own_packages import bind_own_packages

        bind_own_packages()
        module, _, there = _ELSEWHERE.get(name, "clickparity.api").partition(":")
        value = getattr(import_module(module), there or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """As it was installed; setup.cfg has it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("clickparity")
    except PackageNotFoundError:  # a checkout on the search path that nobody installed
        return "0+unknown"
