"""The command line. Long work shows progress on stderr; `--json` prints the result as one object on stdout.

Exit codes: 0 done, 1 unexpected (a retry may help), 2 wrong configuration or arguments, 3 a gate said
no, 4 the input data is bad. 2, 3 and 4 are the caller's to mend, come without a traceback, and must not
be retried. 130 and 143: stopped by SIGINT or SIGTERM; the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pipeline.errors import ClickparityError, ConfigError

__all__ = ["entry_point", "main"]

Job = Callable[[argparse.Namespace], tuple[Any, str]]


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are our errors (exit 2, one message)."""

    def error(self, message: str) -> Any:
        raise ConfigError(f"{self.prog}: {message}", None, f"See: {self.prog} --help.")


def build_parser() -> argparse.ArgumentParser:
    """Every command and its options. Nothing heavy is imported."""
    parser = _Parser(
        prog="clickparity",
        description="CTR models that score in production exactly as they scored in training.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, job: str, help_text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text)
        sub.add_argument("--json", action="store_true", help="print the result as one JSON object")
        sub.add_argument("--verbose", action="store_true", help="show the logs of the libraries")
        sub.set_defaults(job=job)
        return sub

    def config_options(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--config", metavar="FILE", help="YAML of the pipeline, see configs/")
        sub.add_argument(
            "--set",
            nargs="+",
            action="extend",
            default=[],
            metavar="KEY=VALUE",
            help="overrides, e.g. model.norm=layer train.global_batch_size=512",
        )

    sub = command("synth", "synth", "make a click log with known true probabilities")
    sub.add_argument("--out", required=True, metavar="DIR")
    sub.add_argument("--rows", required=True, type=int)
    sub.add_argument("--ctr", type=float, default=0.02, help="mean click probability")
    sub.add_argument("--days", type=int, default=7)
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--drift", type=float, default=1.0, help="scale of the day-to-day drift")
    sub.add_argument("--files", type=int, default=4)
    sub.add_argument(
        "--sequences",
        action="store_true",
        help="with contextual, clicked and unclicked ads (--schema synthetic_sequences)",
    )

    sub = command(
        "preprocess", "preprocess", "raw click logs -> TFRecords (Beam options pass through)"
    )
    sub.add_argument("--schema", required=True, metavar="NAME|FILE")
    sub.add_argument("--input", required=True, nargs="+", metavar="GLOB")
    sub.add_argument("--out", required=True, metavar="DATA_DIR")
    sub.add_argument("--base-statistics", metavar="DIR", help="keep the ids of this vocabulary")
    config_options(sub)

    sub = command("train", "train", "train a model on a data directory")
    sub.add_argument("--data", required=True, metavar="DATA_DIR")
    sub.add_argument("--out", required=True, metavar="RUN_DIR")
    config_options(sub)

    sub = command("evaluate", "evaluate", "metrics of a run on a split")
    sub.add_argument("--run", required=True, metavar="RUN_DIR")
    sub.add_argument("--split", default="test")
    sub.add_argument(
        "--by",
        nargs="+",
        action="extend",
        default=[],
        metavar="COLUMN",
        help="also per value of these columns of the schema",
    )

    sub = command("parity", "parity", "build RUN_DIR/export and prove that it scores as trained")
    sub.add_argument("--run", required=True, metavar="RUN_DIR")
    sub.add_argument("--against", metavar="RUN_DIR", help="another run to show beside it")
    sub.add_argument(
        "--cpp-loader",
        choices=("auto", "on", "off"),
        default="auto",
        help="score with TF Serving's C++ loader too; auto: where a compiler exists; on: always",
    )

    sub = command("export", "export", "gate on the parity report, then publish the same bytes")
    sub.add_argument("--run", required=True, metavar="RUN_DIR")
    sub.add_argument("--models", required=True, metavar="DIR")
    sub.add_argument("--name", required=True)

    sub = command("publish", "publish", "publish an export as the next version")
    sub.add_argument("--export", required=True, metavar="DIR")
    sub.add_argument("--models", required=True, metavar="DIR")
    sub.add_argument("--name", required=True)
    sub.add_argument("--force", action="store_true", help="even if it was rolled back or is live")

    sub = command("versions", "versions", "list the published versions of a model")
    sub.add_argument("--models", required=True, metavar="DIR")
    sub.add_argument("--name", required=True)

    sub = command("rollback", "rollback", "publish an older version again, under the next number")
    sub.add_argument("--models", required=True, metavar="DIR")
    sub.add_argument("--name", required=True)
    sub.add_argument("--to", type=int, metavar="VERSION", help="default: the one before")

    sub = command("prune", "prune", "delete old versions, never the live one")
    sub.add_argument("--models", required=True, metavar="DIR")
    sub.add_argument("--name", required=True)
    sub.add_argument("--keep", type=int, default=3)

    sub = command(
        "score", "score", "batch prediction with an exported model (Beam options pass through)"
    )
    sub.add_argument("--model", required=True, metavar="DIR", help="an export or published version")
    sub.add_argument("--input", required=True, nargs="+", metavar="GLOB")
    sub.add_argument("--out", required=True, metavar="DIR")
    sub.add_argument("--schema", metavar="NAME|FILE", help="of the files; default: the export's")
    sub.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    sub.add_argument("--max-reject-rate", type=float, default=0.01)

    sub = command("stats", "stats", "show the statistics of a data directory")
    sub.add_argument("data", metavar="DATA_DIR")

    sub = command("drift", "drift", "compare a data directory with an earlier one (a gate)")
    sub.add_argument("--data", required=True, metavar="DATA_DIR", help="today's")
    sub.add_argument("--against", required=True, metavar="DATA_DIR", help="the last accepted one's")
    config_options(sub)

    sub = command("schema", "schema", "write a first schema from a sample of a file")
    sub.add_argument("action", choices=("infer",))
    sub.add_argument("file", metavar="FILE")
    sub.add_argument("--out", metavar="FILE", help="default: print it")
    sub.add_argument("--label", metavar="COLUMN", help="when it cannot be told from the values")
    sub.add_argument("--sample-rows", type=int, default=100_000)

    command("models", "models", "list models, normalizations, losses and their options")

    sub = command(
        "serve", "serve", "serve published models (TF Serving if on PATH, else for development)"
    )
    sub.add_argument("--models", required=True, metavar="DIR")
    sub.add_argument("--name", help="only this model")
    sub.add_argument("--host", default="127.0.0.1")
    sub.add_argument("--grpc-port", type=int, default=8500)
    sub.add_argument("--rest-port", type=int, default=8501)

    sub = command("serve-config", "serve_config", "write the files that TF Serving is started with")
    sub.add_argument("--models", required=True, metavar="DIR")
    sub.add_argument("--out", required=True, metavar="DIR")
    sub.add_argument("--name", help="only this model (needed for gs://)")
    sub.add_argument("--base-path", metavar="DIR", help="where the server sees --models")
    sub.add_argument("--num-batch-threads", type=int, default=os.cpu_count() or 4)

    sub = command("predict", "predict", "score the raw rows of a file with a server")
    sub.add_argument("--address", required=True, metavar="HOST:PORT")
    sub.add_argument("--name", required=True)
    sub.add_argument("--input", required=True, nargs="+", metavar="FILE")
    sub.add_argument(
        "--schema",
        metavar="NAME|FILE",
        help="of the file; default: text with a header, Parquet or JSON Lines by its ending",
    )
    sub.add_argument("--protocol", choices=("grpc", "rest"), default="grpc")
    sub.add_argument("--rows", type=int, help="only the first rows")

    sub = command(
        "run", "run", "the scheduled batch run: preprocess, train, evaluate, parity, publish"
    )
    sub.add_argument("--input", nargs="+", default=[], metavar="GLOB")
    sub.add_argument("--workdir", default="workdir", metavar="DIR")
    config_options(sub)

    sub = command("demo", "demo", "the whole product on a synthetic log, with a report")
    sub.add_argument("--out", default="demo_out", metavar="DIR")
    sub.add_argument("--rows", type=int, default=200_000)
    return parser


_PASSES_BEAM_OPTIONS = ("preprocess", "run", "score")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        arguments, rest = build_parser().parse_known_args(argv)
        if rest and arguments.command not in _PASSES_BEAM_OPTIONS:
            raise ConfigError(
                f"clickparity {arguments.command} has no such argument",
                " ".join(rest),
                f"See: clickparity {arguments.command} --help.",
            )
        arguments.beam_options = rest
        _configure_logging(arguments.verbose)
        result, text = _find(arguments.job)(arguments)
    except ClickparityError as error:
        print(f"clickparity: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("clickparity: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception as error:
        if (
            type(error).__name__ == "Interrupted"
        ):  # models.training.trainer's; not imported for this
            print(f"clickparity: {error}", file=sys.stderr)
            return 143
        raise
    print(json.dumps(result, default=str) if arguments.json else text)
    return 0


def _find(name: str) -> Job:
    """The job's `main`, imported only when it is called for."""
    import importlib

    job: Job = importlib.import_module(f"jobs.commands.{name}").main
    return job


def _configure_logging(verbose: bool) -> None:
    """Our lines on stderr; those of the libraries only when asked for (errors come as exceptions)."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(message)s", force=True)
    if not verbose:
        # Importing some of these sets their level: 51 is above CRITICAL and set once, early.
        for library in ("apache_beam", "tensorflow", "absl", "root", "h5py", "matplotlib"):
            logging.getLogger(library).setLevel(logging.CRITICAL + 1)
        logging.getLogger().addFilter(lambda record: record.name != "root")
        for handler in logging.getLogger().handlers:
            handler.addFilter(lambda record: record.name != "root")


def entry_point() -> None:
    """The console script."""
    sys.exit(main())


if __name__ == "__main__":
    entry_point()
