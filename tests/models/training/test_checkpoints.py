"""Checkpoints are whole or absent, and damage of any kind falls back to the one before."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest
import tensorflow as tf

from models.training.checkpoints import Checkpoints
from pipeline.errors import ConfigError


class Counter(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value = tf.Variable(tf.zeros([100]))


def saved(directory: Path, *steps: int, keep: int = 3) -> Counter:
    counter = Counter()
    checkpoints = Checkpoints(directory, keep, counter=counter)
    for step in steps:
        counter.value.assign(tf.fill([100], float(step)))
        checkpoints.save(step, {"step": step})
    return counter


def restored(directory: Path) -> tuple[dict | None, float]:
    counter = Counter()
    state = Checkpoints(directory, 3, counter=counter).restore()
    return state, float(counter.value[0])


def truncate(state: Path) -> None:
    values = next(state.glob("variables.data-*"))
    os.truncate(values, values.stat().st_size // 2)


def flip(state: Path) -> None:
    values = next(state.glob("variables.data-*"))
    content = bytearray(values.read_bytes())
    content[7] ^= 1
    values.write_bytes(content)


def unmark(state: Path) -> None:
    (state / "_SUCCESS").unlink()


def lose(state: Path) -> None:
    (state / "variables.index").unlink()


def garble(state: Path) -> None:
    (state / "_SUCCESS").write_text("[]")


def test_the_newest_comes_back(tmp_path):
    saved(tmp_path, 5, 10)
    assert restored(tmp_path) == ({"step": 10}, 10.0)


def test_nothing_saved_is_none(tmp_path):
    assert restored(tmp_path) == (None, 0.0)


@pytest.mark.parametrize("damage", [truncate, flip, unmark, lose, garble])
def test_damage_falls_back_and_says_so(tmp_path, caplog, damage):
    saved(tmp_path, 5, 10)
    damage(tmp_path / "step-0000000010")
    with caplog.at_level(logging.WARNING, logger="models.training.checkpoints"):
        assert restored(tmp_path) == ({"step": 5}, 5.0)
    assert "step-0000000010 is corrupt" in caplog.text


def test_everything_damaged_starts_anew(tmp_path):
    saved(tmp_path, 5, 10)
    for state in tmp_path.iterdir():
        flip(state)
    assert restored(tmp_path) == (None, 0.0)


def test_only_the_newest_are_kept_and_leftovers_of_the_killed_go(tmp_path):
    (tmp_path / ".step-0000000001.1.tmp").mkdir()
    saved(tmp_path, 5, 10, 15, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000000010", "step-0000000015"]


def test_saving_a_step_again_replaces_it(tmp_path):
    saved(tmp_path, 5)
    flip(tmp_path / "step-0000000005")
    saved(tmp_path, 5)
    assert restored(tmp_path) == ({"step": 5}, 5.0)


def test_a_directory_that_cannot_be_is_an_error_with_a_remedy(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="checkpoints must be writable"):
        saved(tmp_path / "file" / "checkpoints", 5)


def test_a_state_without_some_variable_is_an_error_with_a_remedy(tmp_path):
    Checkpoints(tmp_path, 2, x=tf.Variable(1.0)).save(5, {})
    with pytest.raises(ConfigError, match=r"every variable of the training.*Delete"):
        Checkpoints(tmp_path, 2, x=tf.Variable(0.0), y=tf.Variable(0.0)).restore()
