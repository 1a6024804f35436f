"""Steps that are whole or not there: durability by the calls, refusals, leftovers, two at once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.errors import ClickparityError, ConfigError
from pipeline.step_directory import (
    SUCCESS,
    exclusive,
    fingerprint_of,
    is_finished,
    make_writable,
    step_directory,
    sync_tree,
    write_atomically,
)


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, str]]:
    """What was flushed and renamed, in order: ("fsync", path) and ("rename", target)."""
    recorded: list[tuple[str, str]] = []
    real = {name: getattr(os, name) for name in ("fsync", "rename", "replace")}

    def fsync(descriptor: int) -> None:
        recorded.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        real["fsync"](descriptor)

    def renaming(name: str):
        def rename(source, target) -> None:
            real[name](source, target)
            recorded.append(("rename", str(target)))

        return rename

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, renaming(name))
    return recorded


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def finished(goal: Path, fingerprint: str = "f") -> Path:
    with step_directory(goal, fingerprint) as staging:
        (staging / "out.txt").write_text("x")
    return goal


def test_all_of_a_step_is_flushed_before_it_gets_its_name_and_the_name_after(tmp_path, calls):
    goal = tmp_path / "goal"
    with step_directory(goal, "f") as staging:
        (staging / "inner/deeper").mkdir(parents=True)
        (staging / "out.txt").write_text("x")
        (staging / "inner/deeper/part").write_text("y")
        flushed_within = len(calls)
    assert flushed_within == 0
    renamed = calls.index(("rename", str(goal)))
    flushed = {path.removeprefix(str(staging)) for kind, path in calls[:renamed] if kind == "fsync"}
    wanted = {"", "/inner", "/inner/deeper", "/out.txt", "/inner/deeper/part", f"/{SUCCESS}"}
    assert wanted <= flushed
    assert calls[renamed + 1 :] == [("fsync", str(tmp_path))]
    # the sign that a step is whole is written when everything else is there
    assert calls.index(("rename", str(staging / SUCCESS))) < renamed


def test_every_file_and_directory_of_a_tree_is_flushed(tmp_path, calls):
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("one", "a/two", "a/b/three"):
        (tmp_path / name).write_text("x")
    sync_tree(tmp_path)
    paths = [tmp_path, *tmp_path.rglob("*")]
    assert sorted(calls) == sorted(("fsync", str(path)) for path in paths)


def test_a_file_is_flushed_before_it_replaces_the_old_one(tmp_path, calls):
    goal = tmp_path / "note"
    goal.write_text("old")
    write_atomically(goal, "new")
    (flush, flushed), renamed = calls
    assert (flush, Path(flushed).parent, renamed) == ("fsync", tmp_path, ("rename", str(goal)))
    assert flushed != str(goal)
    write_atomically(goal, b"\xff")
    assert goal.read_bytes() == b"\xff"
    assert names(tmp_path) == ["note"]


def test_what_cannot_be_written_whole_leaves_the_old_and_nothing_else(tmp_path, monkeypatch):
    goal = tmp_path / "note"
    goal.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(goal, "new")
    assert goal.read_text() == "old"
    assert names(tmp_path) == ["note"]
    with pytest.raises(OSError, match="No such file"):
        write_atomically(tmp_path / "missing/note", "new")


def test_what_is_flushed_to_disk_is_all_of_the_content(tmp_path, monkeypatch):
    sizes, real = [], os.fsync

    def fsync(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "note", "12345")
    assert sizes == [5]


def test_a_file_that_cannot_be_opened_says_why(tmp_path, monkeypatch):
    def denied(*_) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", denied)
        with pytest.raises(PermissionError):
            write_atomically(tmp_path / "note", "x")


def test_a_lock_that_somebody_removed_does_not_spoil_the_step(tmp_path):
    with step_directory(tmp_path / "goal", "f"):
        (tmp_path / ".goal.lock").unlink()
    assert is_finished(tmp_path / "goal", "f")


def test_no_descriptor_is_left_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        finished(tmp_path / str(number))
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_finished_step_is_recognised_by_its_fingerprint(tmp_path):
    goal = finished(tmp_path / "goal")
    assert names(tmp_path) == ["goal"]  # neither staging nor lock
    assert is_finished(goal)
    assert is_finished(goal, "f")
    assert not is_finished(goal, "g")
    assert is_finished(tmp_path / "missing") is False
    assert (goal / "out.txt").read_text() == "x"


def test_fingerprints_know_values_and_not_the_order_of_keys():
    assert fingerprint_of({"a": 1, "b": [2]}) == fingerprint_of({"b": [2], "a": 1})
    assert fingerprint_of({"a": 1}) != fingerprint_of({"a": 2})
    assert fingerprint_of("a", "b") != fingerprint_of("ab")
    assert len(fingerprint_of(Path("x"))) == 16


def test_a_step_that_fails_leaves_nothing(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="absent"),
        step_directory(tmp_path / "goal", "f") as staging,
    ):
        (staging / "absent/out.txt").write_text("x")
    assert names(tmp_path) == []


def test_what_killed_starts_left_is_cleared_and_a_neighbours_is_not(tmp_path):
    for name in (".goal.staging-1-a", ".goal.staging-2-b", ".goal2.staging-1-a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("x")
    finished(tmp_path / "goal")
    assert names(tmp_path) == [".goal2.staging-1-a", "goal"]


def test_what_cannot_be_cleared_stops_nobody(tmp_path, monkeypatch):
    """Workers that outlive a killed start still write into what it left."""
    stuck = tmp_path / ".goal.staging-1-a"
    stuck.mkdir()
    (stuck / "stuck").write_text("x")
    real = os.unlink

    def unlink(path, **options) -> None:
        if str(path).endswith("stuck"):
            raise OSError(16, "Device or resource busy")
        real(path, **options)

    monkeypatch.setattr(os, "unlink", unlink)
    assert is_finished(finished(tmp_path / "goal"))


def test_the_directories_above_a_goal_are_made(tmp_path):
    assert is_finished(finished(tmp_path / "new/deep/goal"))


@pytest.mark.parametrize("what", ["file", "foreign", "other step"])
def test_a_goal_that_holds_something_else_is_refused(tmp_path, what):
    goal = tmp_path / "goal"
    if what == "file":
        goal.write_text("mine")
    elif what == "foreign":
        goal.mkdir()
        (goal / "mine.txt").write_text("mine")
    else:
        finished(goal, "g")
    found = "a file" if what == "file" else "another data set or run"
    with pytest.raises(ConfigError, match=rf"must be new, empty.*\({found}\)"):
        finished(goal, "f")
    assert names(tmp_path) == ["goal"]


def test_an_empty_goal_is_taken(tmp_path):
    (tmp_path / "goal").mkdir()
    assert is_finished(finished(tmp_path / "goal"), "f")


def test_who_is_second_with_the_same_result_keeps_the_first(tmp_path):
    goal = finished(tmp_path / "goal")
    with step_directory(goal, "f") as staging:
        (staging / "out.txt").write_text("second")
    assert (goal / "out.txt").read_text() == "x"
    assert names(tmp_path) == ["goal"]


def test_one_process_at_a_time(tmp_path):
    lock = tmp_path / "lock"
    with exclusive(lock):
        with pytest.raises(ClickparityError, match=f"another one holds {lock}") as caught:
            exclusive(lock).__enter__()
        assert caught.value.exit_code == 1
        lock.unlink()  # by the holder: whoever held the old file does not hold the new one
    with exclusive(lock):
        pass


def test_a_lock_whose_file_was_replaced_is_not_held(tmp_path, monkeypatch):
    import fcntl

    lock, real = tmp_path / "lock", fcntl.flock
    for replaced in (False, True):

        def flock(handle, how, replaced=replaced) -> None:
            real(handle, how)
            lock.unlink()  # its holder ended between our open and our flock
            if replaced:
                lock.touch()

        monkeypatch.setattr(fcntl, "flock", flock)
        with pytest.raises(ClickparityError, match="one process at a time"):
            exclusive(lock).__enter__()


def test_a_directory_that_cannot_be_written_is_refused_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="must be writable"):
        make_writable(tmp_path / "file" / "below")
    make_writable(tmp_path / "new/deep")
    make_writable(tmp_path / "new/deep")
    assert names(tmp_path / "new/deep") == []

    def denied(path, *args, **kwargs) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "touch", denied)
    with pytest.raises(ConfigError, match="Permission denied"):
        make_writable(tmp_path / "new")
