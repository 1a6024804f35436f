"""The wheel: what is in it, and that it works away from the checkout, in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.conftest import SETTINGS

ROOT = Path(__file__).parents[1]
PACKAGES = ("clickparity", "jobs", "experiments", "serving", "models", "pipeline")
SHIPPED = ("*.py", "*.yaml", "*.cc", "py.typed")


def said_by(command: list[object], cwd: Path) -> str:
    """What a command prints, in an environment that knows nothing of this checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the sources: a build leaves folders, and takes in what earlier ones left."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    said_by([*pip, "--wheel-dir", source / "dist", source], source)
    (path,) = (source / "dist").glob("clickparity-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment that has the wheel, and our requirements from this one."""
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index"]
    said_by([*pip, wheel], home)
    where = said_by([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], home)
    # As a plain folder: its .pth files, one of which may name this checkout, are not read.
    (Path(where.strip()) / "requirements.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_wheel_holds_every_package_and_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for pattern in SHIPPED
        for path in (ROOT / package).rglob(pattern)
    }
    assert held == expected
    for name in ("clickparity/py.typed", "pipeline/schemas/criteo.yaml"):
        assert name in held
    assert any(name.endswith("score_requests.cc") for name in held)


def test_the_wheel_starts_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = "import clickparity, json, jobs.cli; print(json.dumps([clickparity.__version__, jobs.__file__]))"
    version, file = json.loads(said_by([installed / "python", "-c", code], tmp_path))
    assert Path(file).is_relative_to(installed.parent)
    program = installed / "clickparity"
    assert said_by([program, "--version"], tmp_path) == f"clickparity {version}\n"
    assert "clickparity COMMAND --help explains" in said_by([program], tmp_path)
    listed = json.loads(said_by([program, "models", "--json"], tmp_path))
    assert "dcn_v2" in {model["name"] for model in listed["models"]}
    schema = "import clickparity; print(clickparity.FeatureSchema.load('criteo').name)"
    assert said_by([installed / "python", "-c", schema], tmp_path) == "criteo\n"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_wheel_runs_a_pipeline(installed: Path, tmp_path: Path) -> None:
    program = installed / "clickparity"
    for name in ("models", "jobs", "pipeline", "serving"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    said_by([program, "synth", "--out", "log", "--rows", 6000, "--ctr", 0.2], tmp_path)
    workers = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    run = [program, "run", "--input", "log/*.csv", "--json", "--set", *SETTINGS, *workers]
    assert json.loads(said_by(run, tmp_path))["published"]["version"] == 1
    code = (
        "import clickparity as c; m = c.load_model('workdir/models/ctr'); "
        "print(m({n: [None] for n in m.inputs})[0])"
    )
    assert 0 < float(said_by([installed / "python", "-c", code], tmp_path)) < 1
