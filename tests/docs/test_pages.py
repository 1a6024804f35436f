"""What the pages say of the code is so: paths, names, options, commands, make targets."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from docs.generate import command_parser, config_classes, pages
from jobs.beam_options import check_beam_options
from jobs.command import commands
from tests.docs.pages import PAGES, ROOT, commands_in, fences, inline_code, name_of

ROOMS = "pipeline|models|serving|experiments|jobs|clickparity|configs|benchmarks|docs|tests|k8s"
every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def _is_example(path: str) -> bool:
    """Whether a path stands for another one: models/<name>/, models/ctr/7."""
    return bool(re.search(r"[<>*…]|(^|/)my_|^models/ctr\b", path))


@every_page
def test_every_path_exists(page: Path) -> None:
    paths = [c for c in inline_code(page) if re.fullmatch(rf"(?:{ROOMS})/[\w./<>*…-]*", c)]
    assert [p for p in paths if not _is_example(p) and not (ROOT / p).exists()] == []


@every_page
def test_a_name_is_in_the_file_that_the_page_says(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())
    for name, path in re.findall(rf"`(\w+)` in `((?:{ROOMS})/[\w/]+\.py)`", text):
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        defined = {getattr(n, "name", None) or getattr(n, "id", None) for n in ast.walk(tree)}
        assert name in defined, f"{path} has no {name}"


@every_page
def test_every_dotted_name_can_be_imported(page: Path) -> None:
    texts = [*inline_code(page), *re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)]
    for name in texts:
        is_file = name.endswith((".yaml", ".config"))
        if re.fullmatch(rf"(?:{ROOMS})(?:\.\w+)+", name) and not is_file:
            module, _, last = name.rpartition(".")
            try:
                importlib.import_module(name)
            except ModuleNotFoundError:
                assert hasattr(importlib.import_module(module), last), name


@every_page
def test_every_option_exists(page: Path) -> None:
    known = set(re.findall(r"^\| `([\w.]+)`", "\n".join(pages().values()), re.MULTILINE))
    sections = {config.label for config in config_classes() if hasattr(config, "label")}
    sections |= {"model", "preprocess", "model.norm", "model.embedding"}
    pattern = r"(?:model|train|preprocess|calibration|drift|gate|export)(?:\.\w+)+"
    for code in inline_code(page):
        option = code.partition("=")[0]
        if re.fullmatch(pattern, option):
            assert option in known | sections, f"no option {option}"


@every_page
def test_every_command_line_is_accepted(page: Path) -> None:
    lines = [line for fence in fences(page) for line in commands_in(fence.text)]
    lines += [c for c in inline_code(page) if re.match(r"clickparity [a-z-]+ .*--\w", c)]
    for line in lines:
        words = shlex.split(line.split(" #")[0].removesuffix("&"))[1:]
        if words[0].startswith("-") or words[0] == "COMMAND":
            continue
        assert words[0] in commands(), line
        command = commands()[words[0]]
        parser = command_parser(words[0], command)
        parser.add_argument("--json", action="store_true")
        if line in inline_code(page):  # an excerpt: its options exist
            known = {option for action in parser._actions for option in action.option_strings}
            assert set(re.findall(r"(?<=\s)--[\w-]+", line)) <= known, line
            continue
        _, rest = parser.parse_known_args(words[1:])
        if getattr(command, "PASSES_BEAM_OPTIONS", False):
            check_beam_options(rest)
        else:
            assert rest == [], line


@every_page
def test_every_make_target_exists(page: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    for groups in re.findall(r"^ *make ([a-z][a-z-]*)|`make ([a-z][a-z-]*)", text, re.MULTILINE):
        assert set(filter(None, groups)) <= known


@every_page
def test_python_blocks_compile(page: Path) -> None:
    for fence in fences(page):
        if fence.language == "python":
            compile(fence.text, name_of(page), "exec")


@pytest.mark.parametrize(
    "question, answer",
    [
        ("How is a missing number encoded?", "encode_numeric"),
        ("Where is the export refused?", "serving/gates.py"),
        ("What does a checkpoint hold?", "checkpoints.py"),
        ("How does the poller pick a version?", "WatchedModels"),
    ],
)
def test_the_architecture_page_answers_where_to_look(question: str, answer: str) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| {question} |")]
    assert answer in row
    assert re.search(r"`\w+/[\w/]+\.py`", row)
