"""No input whatever ends in a traceback: damaged files, schemas, configs and arguments, by the thousand.

A minute by default, and the same minute every time. CLICKPARITY_FUZZ_S=86400 looks for a day, from a
random seed (CLICKPARITY_FUZZ_SEED repeats one).
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from jobs.cli import build_parser, main
from tests.conftest import kept_logging

SECONDS = float(os.environ.get("CLICKPARITY_FUZZ_S", 0))
SEED = int(os.environ.get("CLICKPARITY_FUZZ_SEED", random.randrange(1 << 32) if SECONDS else 0))
CASE_S = 180  # a case that takes longer hangs
DEFAULT_CASES = {"infer": 150, "preprocess": 8, "schema": 80, "config": 150, "arguments": 200}
FINAL = {0, 2, 3, 4}

SCHEMA = """
name: fuzzed
source: {kind: KIND}
label: click
time: {column: at, format: epoch_seconds}
features:
  - {name: price, kind: numeric}
  - {name: site, kind: categorical, min_count: 2, num_oov_buckets: 3}
  - {name: tags, kind: sequence, max_length: 3, separator: ' '}
split: {by: row, validation: 0.2, test: 0.2}
"""
CONFIG = """
schema: synthetic
preprocess: {block_bytes: 65536, rows_per_record: 64}
model: {name: dcn_v2, norm: {kind: layer}, embedding_dim: 4, hidden_units: [8, 4]}
train: {epochs: 2, loss: focal, learning_rate: 0.001, early_stopping: true}
calibration: platt
gate: {min_auc: 0.5}
export: {name: ctr}
"""
TOKENS = [
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n\r\n", b'"', b'""', b",", b";", b"\t", b"'",
    b"\\N", b"nan", b"-inf", b"1e999", b"-1", b"0x10", b"1" * 400, b"[/red]", b"\x1b[2J",
    b"\xf0\x9f\x98\x80", b"{", b"}", b"[" * 1500, b"]", b": ", b"- ", b"&a", b"*a",
    b"!!python/object:os.system", b"!!float x", b"null", b"~", b"true", b"<<: *a", b"2001-13-45", b"%",
    b"| ", b"PAR1", b"\x1f\x8b", b"PK\x03\x04", b"kind: image", b"gs://b/x", b"..", b"%Y", b"name",
    b"\xed\xa0\x80", b"1_000", b"0b2", b"1:99:99", b"=", b"@", b"`", b"? ", b"# ", b"\x85",
    b"\xe2\x80\xa8",
]  # fmt: skip
VALUES = [
    "", " ", "x", "-1", "0", "1", "7", "nan", "inf", "1e999", "1" * 5000, "é", "\udcff", "\x1b[31m",
    "a\nb", "[/red]", "{tmp}", "{tmp}/none", "{tmp}/log.csv", "{tmp}/none/none", "/dev/null", "/", "..",
    "a\0b", "x" * 300, "/proc/self/mem", "gs://bucket/x", "s3://bucket/x", "file:///x", "http://h/x",
    "a=b", "model.norm=layr", "schema=synthetic", "=", "train.epochs=[1", "model.hidden_units=[]",
    "{tmp}/*.csv", "{tmp}/[", "**", "--", "-", "criteo", "127.0.0.1:1", "~",
]  # fmt: skip
BEAM = [
    "--runner=Foo",
    "--runner=DataflowRunner",
    "--direct_num_workers=x",
    "--foo",
    "--foo=1",
    "x",
]


# ------------------------------------------------------------------------------- what is damaged


def _rows() -> list[dict[str, object]]:
    return [
        {
            "click": i % 3 == 0,
            "at": 1_700_000_000 + 60 * i,
            "price": i / 8,
            "site": f"s{i % 7}",
            "tags": f"t{i % 5} t{i % 3}",
        }
        for i in range(160)
    ]


def _csv() -> bytes:
    rows = [{**row, "click": int(bool(row["click"]))} for row in _rows()]
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    return "\n".join(lines).encode() + b"\n"


def _jsonl() -> bytes:
    lines = [json.dumps({**row, "click": int(bool(row["click"]))}) for row in _rows()]
    return "\n".join(lines).encode() + b"\n"


def _parquet() -> bytes:
    sink = io.BytesIO()
    table = pa.Table.from_pylist([{**row, "click": int(bool(row["click"]))} for row in _rows()])
    pa.parquet.write_table(table, sink, row_group_size=50)
    return sink.getvalue()


def _examples() -> bytes:
    import tensorflow as tf

    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"fuzz-{os.getpid()}.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in _rows():
            feature = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[str(value).encode()]))
                for name, value in {**row, "click": int(bool(row["click"]))}.items()
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    data = path.read_bytes()
    path.unlink()
    return data


FORMATS: dict[str, Callable[[], bytes]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "parquet": _parquet,
    "examples": _examples,
}


def _damaged(data: bytes, draw: random.Random) -> bytes:
    """A few random changes: bytes, tokens, cuts, repeats."""
    for _ in range(draw.choice([0, 1, 1, 1, 2, 3, 8])):
        at = draw.randrange(len(data) + 1)
        to = min(len(data), at + draw.choice([1, 2, 5, 40, 400]))
        change = draw.randrange(8)
        if change == 0:
            data = data[:at]
        elif change == 1:
            data = data[at:]
        elif change == 2:
            data = data[:at] + draw.randbytes(to - at) + data[to:]
        elif change == 3:
            data = data[:at] + data[to:]
        elif change == 4:
            data = data[:to] + data[at:to] * draw.randrange(4) + data[to:]
        elif change == 5 and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]
        else:
            data = data[:at] + draw.choice(TOKENS) + data[at + draw.choice([0, 0, 1, 4]) :]
    if draw.random() < 0.05:
        data = gzip.compress(data)
    if draw.random() < 0.03:
        data = draw.randbytes(draw.choice([0, 1, 16, 3000]))
    return data


# ------------------------------------------------------------------------------- cases


Case = Callable[[random.Random, Path, dict[str, bytes]], list[str]]


def _infer(draw: random.Random, folder: Path, files: dict[str, bytes]) -> list[str]:
    path = folder / f"log.{draw.choice(list(FORMATS))}"
    path.write_bytes(_damaged(files[draw.choice(list(FORMATS))], draw))
    label = ["--label", draw.choice(["click", "site", "none"])] if draw.random() < 0.3 else []
    return ["schema", "infer", str(path), *label]


def _preprocess(draw: random.Random, folder: Path, files: dict[str, bytes]) -> list[str]:
    kind = draw.choice(list(FORMATS))
    other = kind if draw.random() < 0.9 else draw.choice(list(FORMATS))
    (folder / "log").write_bytes(_damaged(files[other], draw))
    (folder / "schema.yaml").write_text(SCHEMA.replace("KIND", kind))
    return _preprocess_command(folder, draw)


def _preprocess_command(folder: Path, draw: random.Random) -> list[str]:
    rate = draw.choice(["0.01", "1"])
    settings = ["--set", f"preprocess.max_reject_rate={rate}", "preprocess.block_bytes=4096"]
    return ["preprocess", "--schema", str(folder / "schema.yaml"), "--input", str(folder / "log"),
            "--out", str(folder / "data"), *settings]  # fmt: skip


def _schema(draw: random.Random, folder: Path, files: dict[str, bytes]) -> list[str]:
    """Against an empty log: a schema that is taken ends there, and no job is run."""
    (folder / "log").write_bytes(b"")
    text = SCHEMA.replace("KIND", draw.choice(list(FORMATS))).encode()
    (folder / "schema.yaml").write_bytes(_damaged(text, draw))
    return _preprocess_command(folder, draw)


def _config(draw: random.Random, folder: Path, files: dict[str, bytes]) -> list[str]:
    (folder / "c.yaml").write_bytes(_damaged(CONFIG.encode(), draw))
    settings = ["--set", draw.choice(VALUES)] if draw.random() < 0.2 else []
    return ["run", "--config", str(folder / "c.yaml"), "--input", str(folder / "none"),
            "--workdir", str(folder / "work"), *settings]  # fmt: skip


def _arguments(draw: random.Random, folder: Path, files: dict[str, bytes]) -> list[str]:
    """Random options of the real parser with random values; nothing that serves or works for minutes."""
    (folder / "log.csv").write_bytes(files["csv"])
    (choices,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    name = draw.choice([n for n in choices.choices if n not in ("doctor", "serve")])
    argv = [name]
    for action in choices.choices[name]._actions:
        left_out = not action.required and draw.random() < 0.6
        if action.dest == "help" or (left_out and (name, action.dest) != ("demo", "rows")):
            continue
        if action.required and draw.random() < 0.05:
            continue
        values = [str(c) for c in action.choices or VALUES]
        if action.dest == "rows":
            values = ["0", "-1", "x", "nan", "", *(["9"] if name == "synth" else [])]
        if action.dest == "files":
            values = ["0", "1", "x", "9"]
        if draw.random() < 0.1:
            values = VALUES if action.dest != "rows" else values
        if action.option_strings:
            argv.append(draw.choice(action.option_strings))
        if action.nargs != 0:
            argv += [
                draw.choice(values) for _ in range(draw.choice([1, 1, 1, 2]) if action.nargs else 1)
            ]
    if draw.random() < 0.15:
        argv.insert(draw.randrange(len(argv) + 1), draw.choice(BEAM + VALUES))
    return [a.replace("{tmp}", str(folder)) for a in argv]


CASES: dict[str, Case] = {
    "infer": _infer,
    "preprocess": _preprocess,
    "schema": _schema,
    "config": _config,
    "arguments": _arguments,
}


@contextlib.contextmanager
def _time_limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def whole_files() -> dict[str, bytes]:
    return {name: make() for name, make in FORMATS.items()}


@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", CASES)
def test_no_traceback(
    kind: str,
    whole_files: dict[str, bytes],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = time.monotonic() + SECONDS / len(CASES)
    case = 0
    while time.monotonic() < end if SECONDS else case < DEFAULT_CASES[kind]:
        folder = tmp_path / str(case)
        folder.mkdir()
        monkeypatch.chdir(folder)
        argv = CASES[kind](random.Random(f"{SEED} {kind} {case}"), folder, whole_files)
        said = f"{kind} case {case} of seed {SEED}, files in {folder}: {argv}"
        try:
            with kept_logging(), _time_limit(CASE_S):
                code = main(argv)
        except SystemExit as stop:  # --help
            code = int(stop.code or 0)
        except BaseException as error:
            raise AssertionError(f"{said}: {error!r}") from error
        captured = capfd.readouterr()
        allowed = FINAL | {1} if argv[:1] == ["predict"] else FINAL  # no server answers
        assert code in allowed, f"{said}: exit {code}, {captured.err[-2000:]}"
        assert "Traceback" not in captured.err, f"{said}: {captured.err[-3000:]}"
        assert not any(p.name.endswith(":") for p in folder.iterdir()), said
        if code:
            assert captured.err.strip(), f"{said}: silent"
        _remove(folder)
        case += 1


def _remove(folder: Path) -> None:
    import shutil

    os.chdir(folder.parent)
    shutil.rmtree(folder)
