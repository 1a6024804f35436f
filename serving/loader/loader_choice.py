"""When the export check also asks TF Serving's C++ loader: wherever a C++ compiler exists.

Compiling it takes half a minute on a small machine, once for each TensorFlow; the program is then kept in
the user's cache directory.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from pipeline.errors import ConfigError

__all__ = ["Loader", "LoaderUse", "find_loader", "loader_cache"]

LoaderUse = Literal["auto", "on", "off"]


@dataclasses.dataclass(frozen=True)
class Loader:
    """The loader, or why there is none.

    Attributes:
        binary: the program; None when it is not used.
        reason: why not.
    """

    binary: Path | None
    reason: str = ""

    def logits(
        self, export_dir: Path, by_signature: Mapping[str, Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Logits float32 [n] of one request a signature.

        Raises:
            GateError: the export does not load there, or refuses the request.
            ConfigError: there is no loader here.
        """
        from serving.loader.cpp_loader import score_with_loader

        if self.binary is None:
            raise ConfigError("TF Serving's C++ loader must be there to be asked", self.reason)
        return {
            name: score_with_loader(self.binary, export_dir, name, inputs)["logit"]
            for name, inputs in by_signature.items()
        }


def loader_cache() -> Path:
    """Where the compiled loader is kept: XDG_CACHE_HOME/clickparity, else ~/.cache/clickparity."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "clickparity"


def find_loader(use: LoaderUse, say: Callable[[str], None] = lambda line: None) -> Loader:
    """The loader as the option wants it.

    Args:
        use: "auto" takes it where it can be compiled, "on" insists on it, "off" does without.
        say: is called before a compiler starts.

    Raises:
        ConfigError: "on", and it cannot be compiled here.
    """
    if use == "off":
        return Loader(None, "switched off (--cpp-loader off)")
    cache = loader_cache()
    from serving.loader.cpp_loader import build_loader

    reasons: list[str] = []
    say("TF Serving's C++ loader: compiling it if need be")
    try:
        binary = build_loader(cache, on_unavailable=reasons.append)
    except OSError as error:
        binary, reasons = None, [f"{cache} cannot be written ({error.strerror})"]
    if binary is None and use == "on":
        raise ConfigError(
            "--cpp-loader on needs a C++ compiler and a cache directory",
            "; ".join(reasons),
            "Install g++, or take --cpp-loader auto, which goes on without.",
        )
    return Loader(binary, "; ".join(reasons))
