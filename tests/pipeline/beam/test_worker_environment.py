"""What a worker process inherits, and what a process pays for this project's TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.beam.worker_environment import worker_environment
from tests.python_process import answer_of

PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]


def test_worker_processes_get_one_tensorflow_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    monkeypatch.setenv("TF_NUM_INTEROP_THREADS", "7")  # the user's own word stays
    before = dict(os.environ)
    with worker_environment(PipelineOptions(PROCESSES)):
        code = "import os; print([os.environ[f'TF_NUM_{k}OP_THREADS'] for k in ('INTRA', 'INTER')])"
        assert answer_of(["-c", code], timeout_s=60).strip() == "['1', '7']"
    assert dict(os.environ) == before


def test_worker_processes_do_not_import_from_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    show = [sys.executable, "-c", "import pipeline; print(pipeline.__file__)"]
    with worker_environment(PipelineOptions(PROCESSES)):
        found = subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip()
    assert not Path(found).is_relative_to(tmp_path)
    assert os.environ["PYTHONPATH"] == ""
    assert "PYTHONSAFEPATH" not in os.environ


def test_it_is_put_back_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(os.environ)
    with pytest.raises(OSError, match="worker"), worker_environment(PipelineOptions(PROCESSES)):
        raise OSError("worker")
    assert dict(os.environ) == before


@pytest.mark.parametrize("options", [[], ["--direct_running_mode=multi_threading"]])
def test_a_job_in_this_process_changes_nothing(options: list[str]) -> None:
    before = dict(os.environ)
    with worker_environment(PipelineOptions(options)):
        assert dict(os.environ) == before


def test_the_transform_does_not_load_keras_3() -> None:
    code = "import sys, pipeline.transform.feature_transform; print('keras' in sys.modules)"
    assert answer_of(["-c", code], timeout_s=120).strip() == "False"
