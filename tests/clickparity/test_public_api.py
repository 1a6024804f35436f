"""From a log to a score through the public names alone, as their documentation shows it."""

from __future__ import annotations

import doctest
import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import clickparity


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the example of the package's docstring leaves, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("api")
    lines = (clickparity.__doc__ or "").splitlines()
    example = textwrap.dedent("\n".join(x for x in lines if x.startswith("    ") or not x))
    names: dict[str, Any] = {"folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(example, names)
    return names


def test_the_packages_example(shown: dict[str, Any]) -> None:
    run, folder = shown["run"], shown["folder"]
    kept = json.loads((folder / run.path / "metrics.json").read_text())["test"]
    assert shown["metrics"].to_json() == kept
    assert shown["parity"].passed
    assert (folder / "models" / "ctr" / "1" / "saved_model.pb").is_file()
    assert shown["model"].fingerprint == run.fingerprint
    assert shown["probability"].shape == (1,)
    assert 0 < shown["probability"][0] < 1


def test_a_row_scores_the_same_alone_and_among_others_and_as_logit(shown: dict[str, Any]) -> None:
    model = shown["model"]
    three = {
        name: [None, "a", "b"] if dtype.hasobject else [None, 1, 2.5]
        for name, dtype in model.inputs.items()
    }
    probability, logits = model(three), model.logits(three)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-logits)), atol=1e-6)
    alone = model({name: values[1:2] for name, values in three.items()})
    np.testing.assert_allclose(alone, probability[1:2], atol=1e-6)


def test_wrong_columns_are_refused_with_the_names(shown: dict[str, Any]) -> None:
    model = shown["model"]
    first, *others = model.inputs
    with pytest.raises(clickparity.ConfigError, match=f"missing: {first}; unknown: x"):
        model({"x": [1], **{name: [None] for name in others}})
    with pytest.raises(clickparity.ConfigError, match="same number of rows"):
        model({first: [], **{name: [None] for name in others}})
    with pytest.raises(clickparity.ConfigError, match="no such directory"):
        clickparity.load_model(shown["folder"] / "nowhere")


def test_the_functions_examples(shown: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    import clickparity.api

    monkeypatch.chdir(shown["folder"])
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    tests = [t for t in finder.find(clickparity.api) if t.examples]
    tests.sort(key=lambda test: test.lineno or 0)
    for test in tests:
        runner.run(test, clear_globs=False)
    assert len(tests) == len(clickparity.api.__all__)
    assert runner.summarize().failed == 0


def test_nothing_is_written_to_stdout(
    shown: dict[str, Any], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shown["folder"])
    clickparity.evaluate(Path("run"), "validation")
    assert capfd.readouterr().out == ""
