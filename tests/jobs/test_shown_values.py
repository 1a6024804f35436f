"""Values of files on a terminal and in pages: shown as they are, never obeyed."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.show.metrics import segment_table
from jobs.show.progress import say
from jobs.show.tables import table
from models.evaluation import Metrics
from pipeline.errors import ConfigError
from pipeline.plain_text import plain
from serving.parity.outcome import ParityReport
from serving.parity.report import write_report
from tests.jobs.conftest import Outcome

if TYPE_CHECKING:
    from models.run_directory import RunDirectory

Cli = Callable[..., Outcome]
HOSTILE = [
    "[/red]",
    "[bold]x",
    "\x1b[31mred\x1b[0m",
    "\x9b2J",
    "a\rb",
    "\u202eabc",
    "[link=http://x]",
]
SHOWN = ["[/red]", "[bold]x", r"\x1b[31mred\x1b[0m", r"\x9b2J", r"a\rb", r"\u202eabc"]


def test_tables_show_markup_and_escapes_as_text() -> None:
    text = table(["[/red]", "rows\x1b[2J"], [[v, 1] for v in HOSTILE], title="[/blue]\x07")
    for shown in (*SHOWN, "[/blue]\\x07", "rows\\x1b[2J"):
        assert shown in text
    assert all(c.isprintable() or c == "\n" for c in text)


def test_segments_of_hostile_values() -> None:
    fields = [f.name for f in dataclasses.fields(Metrics) if f.default is dataclasses.MISSING]
    figures = Metrics(**dict.fromkeys(fields, 1))
    text = segment_table("[/site]", dict.fromkeys(HOSTILE, figures))
    assert all(shown in text for shown in (*SHOWN, "[/site]"))


def test_stats_and_evaluate_by_hostile_values(cli: Cli, tmp_path: Path) -> None:
    values = [*["[/red]", "\x1b[31mred\x1b[0m"] * 60, *HOSTILE[:4] * 30]
    rows = [f"{i % 2},{value}\n" for i, value in enumerate(values)]
    (tmp_path / "log.csv").write_text("click,site\n" + "".join(rows))
    schema = tmp_path / "schema.yaml"
    schema.write_text(
        "name: x\nsource: {kind: csv}\nlabel: click\n"
        "features: [{name: site, kind: categorical}]\n"
        "split: {by: row, validation: 0.2, test: 0.3}\n"
    )
    data, run = tmp_path / "data", tmp_path / "run"
    argv = ["--schema", schema, "--input", tmp_path / "log.csv", "--out", data]
    assert cli("preprocess", *argv).code == 0
    shown = cli("stats", data)
    assert shown.code == 0
    assert "[/red]" in shown.out
    assert r"\x1b[31m" in shown.out
    small = ["model.hidden_units=[4]", "model.embedding_dim=2", "train.global_batch_size=32"]
    assert cli("train", "--data", data, "--out", run, "--set", *small).code == 0
    by = cli("evaluate", "--run", run, "--by", "site")
    assert by.code == 0, by.err
    assert "[/red]" in by.out
    assert r"\x1b[31mred" in by.out
    assert all("\x1b" not in each.out + each.err for each in (shown, by))


def test_messages_show_control_characters_and_cut_long_values() -> None:
    message = str(ConfigError("a rule", "\x1b]0;title\x07" + "x" * 10**6, "\x1b[2J"))
    assert r"\x1b]0;title\x07xxx" in message
    assert len(message) < 3000
    assert "(1,000,010 characters)" in message
    assert message.isprintable()


def test_a_file_name_that_is_no_utf8_can_be_printed(cli: Cli, tmp_path: Path) -> None:
    name = str(tmp_path / "log-\udcff.csv")
    cli("schema", "infer", name).refused(2, r"udcff")


def test_lines_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    from jobs.logs import logging_to_stderr

    with logging_to_stderr():
        say("reading \x1b[31m.csv")
        logging.getLogger("pipeline.x").warning("file \x1b[2J is odd")
    assert capsys.readouterr().err == "reading \\x1b[31m.csv\nfile \\x1b[2J is odd\n"


def test_plain_leaves_ordinary_text_alone() -> None:
    text = "Ünïcode 한국어 🙂 ~!\"'[]"
    assert plain(text) == text
    assert plain("a\tb\n", lines=True) == "a\tb\n"
    assert plain("a\tb\n") == "a\\tb\\n"


def test_pages_escape_every_value(layer_run: RunDirectory, tmp_path: Path) -> None:
    script = "<script>alert(1)</script>"
    report = layer_run.read_json("parity.json")
    report.update(dict.fromkeys(("model", "norm", "run", "export_digest"), script))
    for check in report["checks"]:
        check["says"] = script
    write_report(tmp_path / "parity.html", [ParityReport.from_json(report)])
    page = (tmp_path / "parity.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 4 + len(report["checks"])
