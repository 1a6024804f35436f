"""The C++ loader against tf.compat.v1's, on a SavedModel with strings, floats and a table."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops.lookup_ops import TableInitializerBase

from pipeline.errors import ClickparityError, ConfigError, GateError
from serving.loader import cpp_loader
from serving.loader.cpp_loader import (
    build_loader,
    score_requests_with_loader,
    score_with_loader,
    time_with_loader,
)


class VariableKeys(TableInitializerBase):
    """Fills a table from a variable, which keeps the keys out of saved_model.pb."""

    def __init__(self, keys: tf.Variable) -> None:
        super().__init__(tf.string, tf.int64)
        self.keys = keys

    def initialize(self, table: tf.lookup.StaticHashTable) -> tf.Operation:
        values = tf.range(tf.size(self.keys, out_type=tf.int64))
        return tf.raw_ops.LookupTableImportV2(
            table_handle=table.resource_handle, keys=self.keys, values=values
        )


class Scorer(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.keys = tf.Variable([b"a", b"\xff\x00", b"", "ключ".encode()])
        self.table = tf.lookup.StaticHashTable(VariableKeys(self.keys), default_value=-1)
        self.weights = tf.Variable(tf.reshape(tf.range(12, dtype=tf.float32) / 7.0, [3, 4]))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 3], tf.float32, "dense"),
            tf.TensorSpec([None], tf.string, "word"),
        ]
    )
    def __call__(self, dense: tf.Tensor, word: tf.Tensor) -> dict[str, tf.Tensor]:
        ids = self.table.lookup(word)
        hidden = tf.tanh(dense @ self.weights)
        return {
            "logit": tf.reduce_sum(hidden, axis=1) + tf.cast(ids, tf.float32),
            "id": ids,
            "echo": tf.strings.join([word, "!"]),
        }


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "scorer"
    module = Scorer()
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.__call__})
    return path


@pytest.fixture(scope="session")
def loader(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    reasons: list[str] = []
    # The compiler takes 20 s: pytest's own cache keeps the binary from one run to the next.
    store = getattr(request.config, "cache", None)
    cache = store.mkdir("clickparity_loader") if store else tmp_path_factory.mktemp("loader")
    binary = build_loader(cache, on_unavailable=reasons.append)
    if binary is None:
        if "no C++ compiler" not in reasons[0]:
            pytest.fail(reasons[0])  # a compiler that refuses the source is a bug in the source
        pytest.skip(reasons[0])
    return binary


def request_of(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    words = [b"a", b"\xff\x00", b"", "ключ".encode(), b"unseen", b"a" * 100_000, b"\x00"]
    return {
        "dense": generator.normal(size=(rows, 3)).astype(np.float32),
        "word": np.array([words[i % 7] for i in range(rows)], dtype=object),
    }


def with_v1_loader(path: Path, request: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(path))
        signature = meta.signature_def["serving_default"]
        fetches = {name: info.name for name, info in signature.outputs.items()}
        feeds = {signature.inputs[name].name: array for name, array in request.items()}
        return session.run(fetches, feeds)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_request_by_hand(loader: Path, saved_model: Path) -> None:
    request = {
        "dense": np.zeros((4, 3), np.float32),
        "word": np.array([b"", "ключ", b"\xff\x00", b"b"], dtype=object),
    }
    answer = score_with_loader(loader, saved_model, "serving_default", request)
    assert answer["id"].tolist() == [2, 3, 1, -1]
    assert answer["logit"].tolist() == [2.0, 3.0, 1.0, -1.0]  # tanh(0) = 0
    assert answer["echo"].tolist() == [b"!", "ключ!".encode(), b"\xff\x00!", b"b!"]


def test_equals_the_v1_loader_in_every_bit(loader: Path, saved_model: Path) -> None:
    requests = [request_of(rows, seed=rows) for rows in (1, 7, 0, 512)]
    requests[1]["dense"][2] = [np.nan, np.inf, -np.inf]
    answers = score_requests_with_loader(loader, saved_model, "serving_default", requests)
    for request, answer in zip(requests, answers, strict=True):
        assert_same(answer, with_v1_loader(saved_model, request))


def test_no_requests(loader: Path, saved_model: Path) -> None:
    assert score_requests_with_loader(loader, saved_model, "serving_default", []) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("word"), r"status 3, missing input: word"),
        (lambda r: r.update(more=np.zeros(1)), r"status 3, unknown input: more"),
        (
            lambda r: r.update(dense=r["dense"].astype(np.float64)),
            r"input dense is double, expected float",
        ),
        (lambda r: r.update(dense=r["dense"][:, :2]), r"request 1; got status 3, .*[Mm]atrix size"),
    ],
)
def test_a_refused_request_is_told_in_tensorflows_words(
    loader: Path, saved_model: Path, change, message: str
) -> None:
    bad = request_of(2)
    change(bad)
    with pytest.raises(GateError, match=message):
        score_requests_with_loader(loader, saved_model, "serving_default", [request_of(2), bad])


def test_a_refused_request_does_not_stop_the_next(
    loader: Path, saved_model: Path, tmp_path: Path
) -> None:
    frames = [cpp_loader._encode_request(request) for request in ({}, request_of(2))]
    (tmp_path / "in").write_bytes(b"".join(frames))
    command = [loader, saved_model, "serving_default", tmp_path / "in", tmp_path / "out"]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    first, second = cpp_loader._decode_responses((tmp_path / "out").read_bytes())
    assert first == (3, "missing input: dense", {})
    assert second[0] == 0
    assert_same(second[2], with_v1_loader(saved_model, request_of(2)))


def test_a_request_file_cut_short_is_refused(
    loader: Path, saved_model: Path, tmp_path: Path
) -> None:
    frame = cpp_loader._encode_request(request_of(2))
    for size in (3, 20, len(frame) - 1):
        (tmp_path / "in").write_bytes(frame[:size])
        command = [loader, saved_model, "serving_default", tmp_path / "in", tmp_path / "out"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1
        assert "cannot read request 0: it is cut short" in done.stderr


def test_models_that_do_not_load(loader: Path, saved_model: Path, tmp_path: Path) -> None:
    with pytest.raises(GateError, match="no signature other"):
        score_with_loader(loader, saved_model, "other", request_of(1))
    with pytest.raises(GateError, match="cannot load: NOT_FOUND"):
        score_with_loader(loader, tmp_path / "nowhere", "serving_default", request_of(1))
    broken = tmp_path / "broken"
    shutil.copytree(saved_model, broken)
    os.truncate(broken / "variables/variables.data-00000-of-00001", 3)
    with pytest.raises(GateError, match="cannot load: "):
        score_with_loader(loader, broken, "serving_default", request_of(1))


def test_an_op_that_lives_in_python_fails_only_here(loader: Path, tmp_path: Path) -> None:
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    def double(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.ensure_shape(tf.numpy_function(lambda a: 2 * a, [x], tf.float32), [None])}

    tf.saved_model.save(module, str(tmp_path / "model"), signatures=double)
    request = {"x": np.array([1.5], np.float32)}
    assert with_v1_loader(tmp_path / "model", request)["y"].tolist() == [3.0]
    with pytest.raises(GateError, match="PyFunc"):
        score_with_loader(loader, tmp_path / "model", "serving_default", request)


def test_no_python_is_linked(loader: Path) -> None:
    linked = subprocess.run(["ldd", str(loader)], capture_output=True, text=True, check=True)
    assert "libtensorflow_cc.so.2" in linked.stdout
    assert "libpython" not in linked.stdout


def test_timing_counts_the_calls_it_was_asked_for(loader: Path, saved_model: Path) -> None:
    requests = [request_of(1), request_of(64)]
    timings = time_with_loader(
        loader, saved_model, "serving_default", requests, repeat=20, threads=1
    )
    assert [timing.calls for timing in timings] == [20, 20]
    for timing in timings:
        assert 0 < timing.min_ns <= timing.median_ns <= timing.p99_ns
        assert 0 < timing.calls_per_s <= 1e9 / timing.min_ns
    (together,) = time_with_loader(
        loader, saved_model, "serving_default", requests[:1], repeat=20, callers=3
    )
    assert together.calls == 60
    with pytest.raises(ConfigError, match="repeat >= 1"):
        time_with_loader(loader, saved_model, "serving_default", requests, repeat=0)
    with pytest.raises(ConfigError, match="callers >= 1"):
        time_with_loader(loader, saved_model, "serving_default", requests, repeat=1, callers=0)


def test_a_loader_that_hangs_or_dies_is_told(saved_model: Path, tmp_path: Path) -> None:
    fake = tmp_path / "fake"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(ClickparityError, match=r"must finish within 0\.2 s"):
        score_with_loader(fake, saved_model, "serving_default", {}, timeout_s=0.2)
    fake.write_text("#!/bin/sh\nkill -SEGV $$\n")
    with pytest.raises(GateError, match="died of SIGSEGV"):
        score_with_loader(fake, saved_model, "serving_default", {})


# --- building, with compilers that are scripts ------------------------------------------------


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A $CXX that writes its `-o` file and counts its calls."""
    script = tmp_path / "bin/my c++"
    script.parent.mkdir()
    script.write_text(
        '#!/bin/sh\necho call >> "$(dirname "$0")/calls"\n'
        'while [ "$1" != -o ]; do shift; done\necho binary > "$2"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("CXX", f"'{script}' -march=native")
    return script


def calls_of(compiler: Path) -> int:
    return len((compiler.parent / "calls").read_text().splitlines())


def test_built_once_and_anew_when_something_changed(
    compiler: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = build_loader(cache)
    assert first is not None
    assert first == build_loader(cache)
    assert calls_of(compiler) == 1
    assert os.listdir(cache) == [first.name]  # no scratch is left

    changed = tmp_path / "score_requests.cc"
    changed.write_text(cpp_loader._SOURCE.read_text() + "// changed\n")
    monkeypatch.setattr(cpp_loader, "_SOURCE", changed)
    assert build_loader(cache) != first
    wheel_dir, _ = cpp_loader._tensorflow()
    monkeypatch.setattr(cpp_loader, "_tensorflow", lambda: (wheel_dir, "9.9.9"))
    assert "9.9.9" in build_loader(cache).name
    assert calls_of(compiler) == 3


def test_no_compiler_is_a_reason_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    reasons: list[str] = []
    assert build_loader(tmp_path / "cache", on_unavailable=reasons.append) is None
    assert reasons == ["no C++ compiler: neither $CXX nor g++ nor clang++ can be found"]
    assert not (tmp_path / "cache").exists()


def test_a_compiler_that_fails_leaves_nothing(compiler: Path, tmp_path: Path) -> None:
    compiler.write_text("#!/bin/sh\necho 'a.cc:1: fatal error: no such file' >&2\nexit 1\n")
    reasons: list[str] = []
    assert build_loader(tmp_path / "cache", on_unavailable=reasons.append) is None
    assert reasons == ["the C++ compiler failed: a.cc:1: fatal error: no such file"]
    assert os.listdir(tmp_path / "cache") == []


def test_a_wheel_without_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "/bin/true")
    monkeypatch.setattr(cpp_loader, "_tensorflow", lambda: (tmp_path, "2.21.0"))
    reasons: list[str] = []
    assert build_loader(tmp_path / "cache", on_unavailable=reasons.append) is None
    assert reasons == [f"the TensorFlow 2.21.0 wheel in {tmp_path} has no libtensorflow_cc.so.2"]
