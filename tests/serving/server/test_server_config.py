"""The files for TF Serving, parsed by its protos, or by a copy of the fields where pip has none."""

import inspect
import json

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

from jobs.cli import main
from pipeline.errors import ConfigError
from serving.client.client import PredictClient
from serving.export.batch_sizes import ALLOWED_BATCH_SIZES
from serving.server.tensorflow_config import batching_parameters, models_config, monitoring_config


def message(fields, nested=()):
    """A message class of (name, number, type name or proto type) fields, as TF Serving declares them."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{fields[0][0]}.proto", package="t")
    file.syntax = "proto3"
    for name, members in (("Top", fields), *nested):
        declared = file.message_type.add(name=name)
        for member, number, kind, *repeated in members:
            field = declared.field.add(name=member, number=number)
            field.label = 3 if repeated else 1
            if isinstance(kind, str):
                field.type, field.type_name = 11, f".t.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Top"))


INT64, BOOL, STRING = 3, 8, 9
# session_bundle_config.proto, BatchingParameters, of TF Serving 2.19: Int64Value wrappers, and ints.
BATCHING = message(
    [
        ("max_batch_size", 1, "Value"),
        ("batch_timeout_micros", 2, "Value"),
        ("max_enqueued_batches", 3, "Value"),
        ("num_batch_threads", 4, "Value"),
        ("allowed_batch_sizes", 6, INT64, "repeated"),
    ],
    [("Value", [("value", 1, INT64)])],
)
MONITORING = message(
    [("prometheus_config", 1, "Prometheus")],
    [("Prometheus", [("enable", 1, BOOL), ("path", 2, STRING)])],
)


def test_the_largest_batch_is_the_last_allowed_size():
    parsed = text_format.Parse(batching_parameters(num_batch_threads=3), BATCHING())
    assert list(parsed.allowed_batch_sizes) == list(ALLOWED_BATCH_SIZES)
    assert parsed.max_batch_size.value == parsed.allowed_batch_sizes[-1]
    assert parsed.num_batch_threads.value == 3
    # What the client sends by itself is what the server with this file takes.
    default = inspect.signature(PredictClient).parameters["max_batch_size"].default
    assert default == parsed.max_batch_size.value


@pytest.mark.parametrize("sizes", [[], [0, 1], [4, 2], [2, 2]])
def test_sizes_that_tf_serving_would_refuse_are_refused(sizes):
    with pytest.raises(ConfigError, match="positive and rise"):
        batching_parameters(allowed_batch_sizes=sizes)


def test_monitoring_is_prometheus_at_the_path_that_the_embedded_server_has():
    from serving.server.metrics import METRICS_PATH

    parsed = text_format.Parse(monitoring_config(), MONITORING())
    assert parsed.prometheus_config.enable
    assert parsed.prometheus_config.path == METRICS_PATH


def test_several_models_are_several_entries():
    text = models_config(["ads", "feed"], "gs://bucket/models/")
    parsed = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    found = [(c.name, c.base_path, c.model_platform) for c in parsed.model_config_list.config]
    assert found == [
        ("ads", "gs://bucket/models/ads", "tensorflow"),
        ("feed", "gs://bucket/models/feed", "tensorflow"),
    ]


def test_the_command_lists_published_models_only(tmp_path, capsys):
    for path in ("models/ads/3", "models/feed/1", "models/empty", "models/.hidden/1"):
        (tmp_path / path).mkdir(parents=True)
    out = tmp_path / "config"
    arguments = ["--models", str(tmp_path / "models"), "--out", str(out), "--batching"]
    assert main(["serve-config", *arguments, "--base-path", "/srv/models", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["models"] == ["ads", "feed"]
    text = (out / "models.config").read_text()
    assert "/srv/models/feed" in text
    assert "empty" not in text
    assert str(tmp_path) not in text
    flags = dict(flag.lstrip("-").split("=", 1) for flag in answer["flags"])
    for name in ("model_config_file", "monitoring_config_file", "batching_parameters_file"):
        assert (tmp_path / flags[name]).is_file()


def test_batching_is_asked_for_and_says_what_it_costs(tmp_path, capsys):
    (tmp_path / "models/ads/3").mkdir(parents=True)
    out = tmp_path / "config"

    def flags(*options):
        arguments = ["--models", str(tmp_path / "models"), "--out", str(out), "--json", *options]
        assert main(["serve-config", *arguments]) == 0
        printed = capsys.readouterr()
        return json.loads(printed.out)["flags"], printed.err

    with_it, said = flags("--batching")
    assert "--enable_batching=true" in with_it
    assert "fails every request of its batch" in said
    assert (out / "batching_parameters.txt").is_file()
    # A file without the flag keeps the server from starting: neither is there by default.
    without, said = flags()
    assert not [flag for flag in without if flag.startswith(("--enable_batching", "--batching"))]
    assert said == ""
    assert not (out / "batching_parameters.txt").exists()
    for chosen in (with_it, without):
        assert "--enable_profiler=false" in chosen
        assert "--enable_grpc_healthcheck_service=true" in chosen


def test_no_model_is_a_configuration_error(tmp_path, capsys):
    assert main(["serve-config", "--models", str(tmp_path), "--out", str(tmp_path / "c")]) == 2
    assert "Publish a model first" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
