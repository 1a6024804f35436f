"""Binds the names of this project's packages to this project, whatever else the search path holds.

`pipeline`, `models`, `serving`, `experiments` and `jobs` lie at the top level, because they are the
layers of the code base (each may be read, tested and checked by itself) and were imported by these names
before `clickparity` existed. Such names are common: a script's folder or the working directory often has
a `models/` of its own, and Python looks there first. So ours are loaded from where `clickparity` itself
was found, before anything imports them by name.
"""

from __future__ import annotations

import importlib.util
import os
import sys

__all__ = ["bind_own_packages"]

_NAMES = ("pipeline", "models", "serving", "experiments", "jobs")
_ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def bind_own_packages() -> None:
    """Loads the top-level packages (not their contents) from beside `clickparity`.

    Raises:
        ImportError: this process has imported another package under one of the names.
    """
    for name in _NAMES:
        folder = os.path.join(_ROOT, name)
        source = os.path.join(folder, "__init__.py")
        if not os.path.isfile(source):
            continue
        loaded = sys.modules.get(name)
        if loaded is None:
            spec = importlib.util.spec_from_file_location(
                name, source, submodule_search_locations=[folder]
            )
            if spec is None or spec.loader is None:
                raise ImportError(f"clickparity needs its package {name!r}; cannot load {source}.")
            sys.modules[name] = module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        elif os.path.realpath(getattr(loaded, "__file__", None) or "") != source:
            raise ImportError(
                f"clickparity needs its own package {name!r} from {folder}; got "
                f"{getattr(loaded, '__file__', None) or loaded}, which was imported before. Import "
                f"clickparity's names first, rename that package, or use the command line."
            )
