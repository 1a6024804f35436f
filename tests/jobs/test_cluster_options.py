"""The Beam options that the operator's page names for clusters are options of the installed Beam."""

from __future__ import annotations

import pytest

from jobs.beam_options import check_beam_options
from pipeline.errors import ConfigError

FLINK = [
    "--runner=FlinkRunner",
    "--flink_master=flink-jobmanager:8081",
    "--flink_version=1.20",
    "--environment_type=EXTERNAL",
    "--environment_config=localhost:50000",
    "--parallelism=16",
]
DATAFLOW = [
    "--runner=DataflowRunner",
    "--project=ours",
    "--region=europe-west4",
    "--temp_location=gs://ours/tmp",
    "--staging_location=gs://ours/staging",
    "--sdk_container_image=europe-docker.pkg.dev/ours/images/clickparity:1",
    "--setup_file=./setup.py",
    "--max_num_workers=20",
]
PORTABLE = [
    "--runner=PortableRunner",
    "--job_endpoint=localhost:8099",
    "--environment_type=EXTERNAL",
    "--environment_config=localhost:50000",
]


@pytest.mark.parametrize("options", [FLINK, DATAFLOW, PORTABLE], ids=["flink", "dataflow", "any"])
def test_beam_knows_them(options: list[str]) -> None:
    check_beam_options(options)
    for i in range(len(options)):
        name, _, value = options[i].partition("=")
        with pytest.raises(ConfigError, match="neither clickparity nor Beam"):
            check_beam_options([*options[:i], f"{name}_x={value}", *options[i + 1 :]])


def test_a_flink_that_beam_has_no_job_server_for() -> None:
    with pytest.raises(ConfigError, match=r"flink_version.*1\.18"):
        check_beam_options([*FLINK, "--flink_version=1.18"])


@pytest.mark.parametrize(
    "options, phrase",
    [
        (
            ["--runner=FlinkRuner"],
            r"must be a runner that Beam has.*FlinkRuner.*Allowed: .*FlinkRunner",
        ),
        (["--runner=os.path"], "must be a runner that Beam has"),
        (["--runner=DataflowRunner"], "Missing required option: project"),
        (["--runner=DataflowRunner", "--project=P"], "Invalid Project ID"),
    ],
)
def test_a_runner_that_cannot_run_is_refused_before_any_work(
    options: list[str], phrase: str
) -> None:
    with pytest.raises(ConfigError, match=phrase):
        check_beam_options(options)
