"""TensorFlow's start-up lines are left out of every process, and nothing else is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.quiet import is_noise

ROOT = Path(__file__).parents[2]
NOISE = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795861531.024270   23704 port.cc:153] oneDNN custom operations are on.",
    "E0000 00:00:1795861654.075514   26570 cuda_platform.cc:52] failed call to cuInit: INTERNAL",
)
KEPT = (
    "epoch 1: loss 0.4832 0 examples/s",
    "clickparity: groups must divide units; got groups=3.",
    "F0000 00:00:1795861531.024270   23704 cpu_feature_guard.cc:20] compiled to use AVX512",
)


def process(arguments: list[str], **environment: str) -> str:
    """What a real process writes on its standard error."""
    inherited = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


def assert_quiet(stderr: str) -> None:
    lines = stderr.splitlines()
    assert not [line for line in lines if is_noise(line.encode(), 3) or "absl" in line]


@pytest.mark.parametrize("line", NOISE)
def test_noise_is_known(line):
    assert is_noise(line.encode(), 3) and not is_noise(line.encode(), 0)


@pytest.mark.parametrize("line", KEPT)
def test_our_lines_and_fatal_ones_are_none(line):
    assert not is_noise(line.encode(), 3)


def test_a_level_keeps_what_is_at_or_above_it():
    warning, error = (f"{s}0000 00:00:1.5   1 a.cc:1] text".encode() for s in "WE")
    assert is_noise(warning, 2) and not is_noise(error, 2) and is_noise(error, 3)


@pytest.fixture
def loud(tmp_path: Path) -> str:
    """A library called tensorflow that writes straight to the descriptor, as C++ does."""
    package = tmp_path / "tensorflow"
    package.mkdir()
    lines = "\n".join((NOISE[0], KEPT[0], NOISE[1], KEPT[2]))
    (package / "__init__.py").write_text(f"import os\nos.write(2, {lines + chr(10)!r}.encode())\n")
    return os.pathsep.join((str(ROOT), str(tmp_path)))


IMPORT = ["-c", "import sys, pipeline; print('before', file=sys.stderr); import tensorflow as t\n"
          "print('after', t.__loader__.__class__.__name__, file=sys.stderr)"]  # fmt: skip


def test_only_the_noise_of_the_import_is_left_out(loud):
    lines = process(IMPORT, PYTHONPATH=loud).splitlines()
    assert lines == ["before", KEPT[0], KEPT[2], "after SourceFileLoader"]


def test_verbose_shows_all(loud):
    lines = process(IMPORT, PYTHONPATH=loud, TF_CPP_MIN_LOG_LEVEL="0").splitlines()
    assert lines == ["before", NOISE[0], KEPT[0], NOISE[1], KEPT[2], "after SourceFileLoader"]


def test_an_import_that_fails_keeps_its_lines(loud, tmp_path):
    with open(tmp_path / "tensorflow" / "__init__.py", "a") as file:
        file.write("raise ImportError('no such library')\n")
    code = "import pipeline\ntry:\n    import tensorflow\nexcept ImportError as e:\n    print(e)"
    lines = process(["-c", code], PYTHONPATH=loud).splitlines()
    assert lines == [KEPT[0], KEPT[2]]


def test_a_real_preprocess_and_train_show_their_own_lines_only(tmp_path: Path):
    from pipeline.synthetic.log import SyntheticLog, write_log

    write_log(SyntheticLog(num_rows=600, ctr=0.3), tmp_path / "log", num_files=1)
    data, cli = str(tmp_path / "data"), ["-P", "-m", "jobs.cli"]
    options = ["--schema", "synthetic", "--input", str(tmp_path / "log" / "*.csv"), "--out", data]
    first = process([*cli, "preprocess", *options])
    second = process([*cli, "train", "--data", data, "--out", str(tmp_path / "run")])
    for stderr, own in ((first, "encode"), (second, "epoch 1: loss")):
        assert_quiet(stderr)
        assert own in stderr
