"""Every path argument of every command: parsed at the door, and refused there where it is not supported."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs import command as door
from jobs.cli import build_parser
from pipeline.errors import ClickparityError, ConfigError
from pipeline.paths import RemotePath, local_path, parse_path, scheme_of
from tests.jobs.conftest import Outcome

Cli = Callable[..., Outcome]
SCHEMES = ("gs://bucket/x", "s3://bucket/x", "hdfs://host/x", "file:///tmp/x", "gs:/bucket/x")
PATHS = ("DIR", "FILE", "GLOB")
TYPES = (door.local, door.models_directory, door.input_pattern, door.schema_name)
NO_PATHS_OF_THIS_MACHINE = {("serve-config", "base_path")}  # as the server sees it


def _commands() -> dict[str, argparse.ArgumentParser]:
    (choices,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(choices.choices)


def _path_arguments() -> Iterator[tuple[str, argparse.Action]]:
    for name, parser in _commands().items():
        for action in parser._actions:
            metavar = action.metavar if isinstance(action.metavar, str) else ""
            if metavar.endswith(PATHS) and (name, action.dest) not in NO_PATHS_OF_THIS_MACHINE:
                yield name, action


ARGUMENTS = list(_path_arguments())
IDS = [f"{name} {action.dest}" for name, action in ARGUMENTS]


def test_there_are_many() -> None:
    assert len(ARGUMENTS) > 30
    assert {action.type for _, action in ARGUMENTS} == set(TYPES)


@pytest.mark.parametrize("name, action", ARGUMENTS, ids=IDS)
def test_a_path_argument_has_a_type_that_knows_schemes(name: str, action: argparse.Action) -> None:
    assert action.type in TYPES, "give it a type of jobs.command"


@pytest.mark.parametrize("name, action", ARGUMENTS, ids=IDS)
def test_what_is_not_supported_is_refused_before_anything_is_written(
    name: str,
    action: argparse.Action,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other required arguments hold local paths that are not there."""
    monkeypatch.chdir(tmp_path)
    for scheme in SCHEMES:
        is_bucket = action.type is door.models_directory and scheme_of(scheme) == "gs"
        if action.type is door.input_pattern or is_bucket:
            continue  # supported, or refused by what can reach the store: see below
        outcome = cli(name, *_argv(name, action.dest, scheme))
        outcome.refused(2, scheme, "must be")
        assert list(tmp_path.iterdir()) == []


def _argv(name: str, dest: str, value: str) -> list[str]:
    argv = []
    for action in _commands()[name]._actions:
        given = value if action.dest == dest else None
        if given is None and not action.required:
            continue
        if given is None:
            given = str(next(iter(action.choices))) if action.choices else "10"
        argv += [given] if not action.option_strings else [action.option_strings[-1], given]
    return argv


INPUTS = [
    ["preprocess", "--schema", "synthetic", "--out", "d", "--input"],
    ["run", "--set", "schema=synthetic", "--input"],
    ["schema", "infer"],
]


@pytest.mark.parametrize("argv", INPUTS, ids=["preprocess", "run", "schema infer"])
@pytest.mark.parametrize(
    "address, extra",
    [
        ("s3://bucket/x.csv", "apache-beam[aws]"),
        ("hdfs://host/x.csv", "apache-beam[hadoop]"),
        ("ftp://host/x.csv", "ftp://"),
        ("gs://bucket/x.csv", "apache-beam[gcp]"),
    ],
)
def test_inputs_on_a_store_that_is_not_installed(
    argv: list[str],
    address: str,
    extra: str,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "gcp" in extra and _has_gcp():
        pytest.skip("Google's libraries are installed")
    monkeypatch.chdir(tmp_path)
    cli(*argv, address).refused(2, address, extra)
    assert list(tmp_path.iterdir()) == []


def _has_gcp() -> bool:
    from apache_beam.io.filesystems import FileSystems

    try:
        FileSystems.get_filesystem("gs://bucket")
    except ValueError:
        return False
    return True


def test_models_in_a_bucket_that_cannot_be_reached_from_here(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if _has_gcp():
        pytest.skip("Google's libraries are installed")
    monkeypatch.chdir(tmp_path)
    where = ["--models", "gs://bucket/models", "--name", "ctr"]
    for name in ("versions", "prune", "rollback"):
        cli(name, *where).refused(2, "gs://bucket/models", "apache-beam[gcp]")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["gs://bucket/x", "s3://b", "gs:/bucket", Path("gs://bucket/x")])
def test_the_python_doors_refuse_what_they_would_write_into_a_folder_of_that_name(
    given: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_log: Path
) -> None:
    import clickparity
    from jobs.config import load_run_config
    from jobs.scheduled_run import run_pipeline
    from pipeline.step_directory import make_writable
    from serving.server.tensorflow_config import write_server_config

    monkeypatch.chdir(tmp_path)
    log = str(tiny_log / "*.csv")
    config = load_run_config(None, ["schema=synthetic", "model.hidden_units=[4]"])
    doors: list[Callable[[], object]] = [
        lambda: clickparity.synthesize(given, rows=10),
        lambda: clickparity.preprocess(log, given, "synthetic"),
        lambda: run_pipeline(config, [log], Path(given)),
        lambda: write_server_config(Path(given), models=["a"], base="/m"),
        lambda: make_writable(Path(given)),
    ]
    for call in doors:
        with pytest.raises(ConfigError, match=r"local (path|directory)"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_parse_path() -> None:
    assert parse_path("a/b", "x") == Path("a/b")
    assert parse_path("C:/x", "x") == Path("C:/x")
    remote = parse_path("gs://b/m", "x", schemes=("gs",))
    assert isinstance(remote, RemotePath)
    assert (remote.scheme, str(remote)) == ("gs", "gs://b/m")
    with pytest.raises(TypeError):
        Path(remote)  # type: ignore[arg-type]
    for bad in ("", "  ", "a\0b", "GS://b"):
        with pytest.raises(ClickparityError):
            local_path(bad, "x")
