"""The steps of the command line as Python functions; each takes paths and plain values.

They do what the command of the same name does (`prove` is `clickparity parity`): a step that is done
already is not repeated, except that `evaluate` and `prove` always measure anew. Remarks go to stderr.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clickparity.own_packages import bind_own_packages

if TYPE_CHECKING:
    from clickparity.scoring_model import ScoringModel
    from models.evaluation import Evaluation
    from models.run_directory import RunDirectory
    from models.trained_run import TrainedRun
    from pipeline.records.data_directory import DataDirectory
    from pipeline.schema import FeatureSchema
    from serving.parity.outcome import ParityReport
    from serving.run_steps import Published

__all__ = ["evaluate", "load_model", "preprocess", "prove", "publish", "synthesize", "train"]

bind_own_packages()

AnyPath = str | Path


def synthesize(
    out: AnyPath, rows: int, *, ctr: float = 0.02, days: int = 7, seed: int = 0, files: int = 4
) -> list[Path]:
    """Writes a click log whose true click probabilities are known (schema "synthetic").

    Args:
        out: a directory, made when missing.
        rows: of all files together.
        ctr: the mean click probability.
        days: how many days the log covers.
        seed: another one gives other rows.
        files: how many CSV files.

    Returns:
        The files.

    Raises:
        ConfigError: a value out of its range, or `out` cannot be written.

    Examples:
        >>> files = synthesize("small_log", rows=100)
        >>> len(files)
        4
    """
    from pipeline.paths import local_path
    from pipeline.step_directory import make_writable
    from pipeline.synthetic.log import SyntheticLog, write_log

    log = SyntheticLog(num_rows=rows, ctr=ctr, num_days=days, seed=seed)
    folder = local_path(out, "out")
    make_writable(folder)
    return [Path(path) for path in write_log(log, folder, num_files=files)]


def preprocess(
    inputs: AnyPath | Sequence[AnyPath],
    out: AnyPath,
    schema: str | Path | FeatureSchema,
    *,
    config: AnyPath | None = None,
    settings: Sequence[str] = (),
    base_statistics: AnyPath | None = None,
    beam_options: Sequence[str] = (),
) -> DataDirectory:
    """Turns raw click logs into TFRecords with a Beam job.

    Args:
        inputs: files and patterns (globs); local, or gs://.
        out: the data directory: new, empty, or one that holds this very data set.
        schema: a preset's name ("criteo"), a YAML file, or a `FeatureSchema`.
        config: a pipeline's YAML file, for its section `preprocess`.
        settings: "section.option=value", as `--set` takes them; they override `config`.
        base_statistics: the `statistics` folder of an earlier data set whose ids are kept.
        beam_options: Beam's own, such as "--direct_num_workers=2".

    Raises:
        ConfigError: wrong arguments, or a schema that contradicts the files.
        DataError: no rows, too many rows that cannot be read, or a damaged file.

    Examples:
        >>> data = preprocess("log/*.csv", "data", "synthetic")
        >>> sum(data.num_rows(split) for split in ("train", "validation", "test"))
        10000
    """
    from jobs.beam_options import check_beam_options
    from jobs.config import load_run_config
    from pipeline.preprocessing.job import preprocess as run_job
    from pipeline.schema import FeatureSchema

    check_beam_options(beam_options)
    patterns = [inputs] if isinstance(inputs, str | Path) else inputs
    return run_job(
        schema if isinstance(schema, FeatureSchema) else FeatureSchema.load(schema),
        [str(pattern) for pattern in patterns],
        out,
        load_run_config(config, settings).preprocess,
        base_statistics=base_statistics,
        beam_options=beam_options,
    )


def train(
    data: AnyPath | DataDirectory,
    out: AnyPath,
    *,
    config: AnyPath | None = None,
    settings: Sequence[str] = (),
    progress: bool = False,
) -> RunDirectory:
    """Trains a model and fits its calibration; a training that was stopped goes on where it was.

    Args:
        data: what `preprocess` returned, or its directory.
        out: the run directory: new, or one of this very configuration and data.
        config: a pipeline's YAML file, see configs/; None: the defaults.
        settings: "section.option=value", as `--set` takes them; they override `config`.
        progress: show it on stderr.

    Raises:
        ConfigError: a wrong option, or `out` holds another run.
        Interrupted: SIGTERM came; the state is saved, the same call goes on from it.

    Examples:
        >>> settings = ["model.norm=layer", "train.global_batch_size=256"]
        >>> settings += ["train.learning_rate=0.01"]
        >>> run = train("data", "run", settings=settings)
        >>> run.is_trained
        True
    """
    from jobs.config import load_run_config
    from jobs.steps import train_run
    from pipeline.records.data_directory import DataDirectory

    opened = data if isinstance(data, DataDirectory) else DataDirectory.open(data)
    trained = train_run(opened, load_run_config(config, settings), Path(out), progress=progress)
    return trained.run


def evaluate(
    run: AnyPath | RunDirectory, split: str = "test", *, by: Sequence[str] = ()
) -> Evaluation:
    """Measures a run on a split; the result is kept in RUN_DIR/metrics.json too.

    Args:
        run: what `train` returned, or its directory.
        split: "train", "validation" or "test".
        by: columns of the schema; the metrics are also given for each of their values.

    Returns:
        Calibrated metrics with their 95 % intervals (`auc`, `auc_low`, `auc_high`, `log_loss`, ...),
        `count` and `clicks`; the same before calibration as `raw`; by column and value as `segments`.

    Raises:
        ConfigError: an untrained run, no such split or column, or no rows in it.

    Examples:
        >>> metrics = evaluate("run")
        >>> 0 < metrics.log_loss < 1
        True
    """
    from models.run_steps import evaluate_run

    return evaluate_run(_opened(run), split, force=True, segments=by)


def prove(
    run: AnyPath | RunDirectory,
    *,
    against: AnyPath | RunDirectory | None = None,
    cpp_loader: Literal["auto", "on", "off"] = "auto",
) -> ParityReport:
    """Builds RUN_DIR/export and holds it against the trained model: the parity checks.

    Args:
        run: what `train` returned, or its directory.
        against: another run on the same data, for the check `metric`.
        cpp_loader: whether TF Serving's own C++ loader is asked too; "auto" where a compiler exists.

    Returns:
        The report, which is kept in RUN_DIR/parity.json: `passed` (every bar holds) and `checks`, each
        with `name`, `value`, `bar` (None: reported only) and `passed`. A failed bar does not raise
        here; `publish` refuses it.

    Raises:
        ConfigError: an untrained run; "on", and there is no compiler.
        GateError: the export does not load in a fresh process.

    Examples:
        >>> parity = prove("run", cpp_loader="off")
        >>> parity.passed
        True
    """
    from serving.run_steps import prove_run

    other = None if against is None else _opened(against)
    return prove_run(_opened(run), against=other, cpp_loader=cpp_loader, force=True)


def publish(
    run: AnyPath | RunDirectory,
    models_dir: AnyPath,
    name: str | None = None,
    *,
    config: AnyPath | None = None,
    settings: Sequence[str] = (),
) -> Published:
    """Asks the gates of the run's config, then publishes the very bytes that `prove` has checked.

    Args:
        run: a proved run, or its directory.
        models_dir: the directory that TF Serving watches.
        name: of the served model; None: the config's `export.name`.
        config: a pipeline's YAML file, whose sections `gate` and `export` replace the run's.
        settings: "gate.option=value" and "export.option=value", as `--set` takes them. What replaced
            the run's options is kept when it is published.

    Returns:
        `version`, `path`, `fingerprint`, `outcome` ("published", or why there was nothing to do) and
        `message`.

    Raises:
        GateError: a gate refuses the run; nothing is published.
        ConfigError: the run is not proved yet, or `name` is not a model's name.

    Examples:
        >>> publish("run", "models", "ctr").version
        1
    """
    from jobs.steps import publish_trained

    return publish_trained(_opened(run), models_dir, name, config=config, settings=settings)


def load_model(path: AnyPath) -> ScoringModel:
    """Loads an exported model as TF Serving does, and returns it as a function of raw columns.

    Args:
        path: RUN_DIR/export, a published version, or MODELS_DIR/NAME (its latest version).

    Raises:
        ConfigError: no model there.
        GateError: its bytes are not those that its manifest lists, or it does not load.

    Examples:
        >>> model = load_model("models/ctr")
        >>> probability = model({name: [None, None] for name in model.inputs})
        >>> probability.shape
        (2,)
    """
    from clickparity.scoring_model import ScoringModel
    from jobs.scoring import export_of

    return ScoringModel.load(export_of(Path(path)))


def _opened(run: AnyPath | RunDirectory) -> TrainedRun:
    from models.trained_run import TrainedRun

    return TrainedRun(run)
