"""Every option of a pipeline's config states which step's result it changes."""

from __future__ import annotations

import dataclasses

import pytest

from jobs.config import RunConfig, load_run_config
from pipeline.strict_config import Changes, StrictConfig, options_that_change

CONFIG = load_run_config(None)
SECTIONS = [getattr(CONFIG, f.name) for f in dataclasses.fields(RunConfig) if f.name != "schema"]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.label)
def test_every_option_of_a_section_is_in_one_identity(section: StrictConfig) -> None:
    by_step = [options_that_change(section, step) for step in Changes]
    stated = [name for options in by_step for name in options]
    assert set(stated) == set(type(section).model_fields)
    assert isinstance(section.changes, Changes)


def test_a_section_that_does_not_state_it_is_refused() -> None:
    class Silent(StrictConfig):
        option: int = 1

    with pytest.raises(TypeError, match="Silent must state what its options change"):
        options_that_change(Silent(), Changes.WEIGHTS)


def test_what_an_option_states_goes_before_what_its_section_states() -> None:
    weights = options_that_change(CONFIG.train, Changes.WEIGHTS)
    assert {"seed", "global_batch_size", "loss", "precision"} <= set(weights)
    assert options_that_change(CONFIG.train, Changes.EVALUATION) == {"evaluation_batch_size": 8192}
    assert set(options_that_change(CONFIG.train, Changes.NOTHING)) == {
        "steps_per_execution", "checkpoint_every_steps", "keep_checkpoints"
    }  # fmt: skip
    assert options_that_change(CONFIG.model, Changes.WEIGHTS) == CONFIG.model.model_dump(
        mode="json"
    )
    assert options_that_change(CONFIG.preprocess, Changes.GATE) == {
        "max_reject_rate": 0.01,
        "max_misfit_rate": 0.01,
    }
