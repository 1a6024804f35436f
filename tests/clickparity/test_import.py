"""What `import clickparity` costs and offers, and what an import under a common name meets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import clickparity

ROOT = Path(__file__).parents[2]
NAMES = ("models", "jobs", "pipeline", "serving")


def python(code: str, cwd: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def folder_with_such_names(tmp_path: Path) -> Path:
    """A working directory with packages of the user's own."""
    for name in NAMES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    return tmp_path


def test_the_import_is_light(tmp_path: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import clickparity; dir(clickparity)\n"
        "names = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "print(*names - sys.stdlib_module_names)"
    )
    assert python(code, tmp_path).stdout.split() == ["clickparity"]


def test_every_public_name_is_there_and_documented() -> None:
    assert set(clickparity.__all__) <= set(dir(clickparity))
    for name in clickparity.__all__:
        value = getattr(clickparity, name)
        assert name == "__version__" or value.__doc__, name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = clickparity.no_such_name


def test_help_imports_few_modules(tmp_path: Path) -> None:
    code = (
        "import sys; from clickparity.__main__ import entry_point; sys.argv = ['clickparity']\n"
        "try: entry_point()\n"
        "finally: print(len(sys.modules), *{m.partition('.')[0] for m in sys.modules}, file=sys.stderr)"
    )
    done = python(code, tmp_path)
    assert "clickparity COMMAND --help explains" in done.stdout
    count, *found = done.stderr.split()
    heavy = {"tensorflow", "apache_beam", "numpy", "pydantic", "yaml", "rich", "grpc", "pyarrow"}
    assert not heavy & set(found)
    assert int(count) < 250


def test_a_users_packages_of_our_names_are_not_taken_for_ours(folder_with_such_names: Path) -> None:
    code = "import clickparity; print(clickparity.FeatureSchema.load('criteo').name)"
    done = python(code, folder_with_such_names)
    assert done.stdout == "criteo\n", done.stderr


def test_a_name_that_is_taken_already_is_an_error_with_a_remedy(
    folder_with_such_names: Path,
) -> None:
    done = python("import models, clickparity; clickparity.train", folder_with_such_names)
    message = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    for phrase in ("'models'", str(folder_with_such_names / "models"), "rename"):
        assert phrase in message
