"""The reference pages, written from the code: commands, configuration, schema, models, exit codes.

The site build adds them as if they were files (`docs/hooks.py`); a test holds them against the code.
Nothing is described here: the words are the help texts and docstrings of what they describe.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import pipeline.errors
from jobs.command import Command, Group, commands
from jobs.config import RunConfig
from models.config.listing import OptionEntry, describe_models
from models.config.model import ModelConfig
from models.config.train import LossConfig
from pipeline.schema import FeatureSchema
from pipeline.strict_config import Changes

__all__ = ["command_parser", "config_classes", "pages"]

_GENERATED = "*This page is generated from the code when the site is built.*"
_EVERY_COMMAND = {
    "--json": "print the result as one JSON object on stdout",
    "--verbose": "show the logs of the libraries",
    "--help": "explain the command",
}


def pages() -> dict[str, str]:
    """Every generated page: its path below docs/ -> Markdown."""
    return {
        "reference/commands.md": _commands_page(),
        "reference/configuration.md": _configuration_page(),
        "reference/models.md": _models_page(),
        "reference/schema.md": _schema_page(),
        "reference/exit-codes.md": _exit_codes_page(),
    }


# ------------------------------------------------------------------------------------- commands


def command_parser(name: str, command: Command) -> argparse.ArgumentParser:
    """A command's own parser, as `clickparity NAME` uses it."""
    parser = argparse.ArgumentParser(prog=f"clickparity {name}", add_help=False)
    command.add_arguments(parser)
    return parser


def _commands_page() -> str:
    known = commands()
    parts = [
        "# Commands",
        _GENERATED,
        "`clickparity --help` lists the commands, `clickparity COMMAND --help` explains one. "
        "`clickparity --version` prints the version. Exit codes: see [Exit codes](exit-codes.md).",
        "Every command also takes:",
        _table(["option", "meaning"], [[f"`{o}`", text] for o, text in _EVERY_COMMAND.items()]),
    ]
    for group in Group:
        members = {n: c for n, c in known.items() if c.GROUP is group}
        if members:
            parts.append(f"## {group.value[0].upper()}{group.value[1:]}")
            parts += [_command_section(name, command) for name, command in members.items()]
    return _page(parts)


def _command_section(name: str, command: Command) -> str:
    parser = command_parser(name, command)
    usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
    wrapped = textwrap.fill(usage, 76, subsequent_indent="    ", break_long_words=False)
    parts = [f"### clickparity {name}", f"{command.HELP[0].upper()}{command.HELP[1:]}."]
    parts.append(f"```text\n{wrapped}\n```")
    rows = [_argument_row(action) for action in _arguments(parser)]
    if rows:
        parts.append(_table(["argument", "default", "meaning"], rows))
    if getattr(command, "PASSES_BEAM_OPTIONS", False):
        parts.append(
            "Other options go to Apache Beam, for example `--direct_num_workers=2 "
            "--direct_running_mode=multi_processing`; one that Beam does not know is refused."
        )
    return "\n\n".join(parts)


def _arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return list(parser._actions)  # argparse has no public list of them


def _argument_row(action: argparse.Action) -> list[str]:
    name = ", ".join(action.option_strings) or str(action.metavar or action.dest).upper()
    value = "" if action.nargs == 0 or not action.option_strings else _metavar(action)
    default = "required" if action.required else _literal(action.default)
    meaning = (action.help or "").replace("%%", "%")
    if action.choices and action.option_strings:
        meaning = "; ".join(filter(None, [meaning, "one of " + _codes(action.choices)]))
    return [f"`{name}{value}`", default, meaning]


def _metavar(action: argparse.Action) -> str:
    if action.choices:
        return ""
    metavar = action.metavar or {int: "N", float: "X"}.get(action.type, "TEXT")  # type: ignore[call-overload]
    return f" {metavar}{' ...' if action.nargs == '+' else ''}"


# ------------------------------------------------------------------------------------- configuration


def config_classes() -> list[type[BaseModel]]:
    """The classes of every section of a configuration file but `model`, outer ones first."""
    hints = typing.get_type_hints(RunConfig)
    sections = [hints[f.name] for f in dataclasses.fields(RunConfig) if f.name != "model"]
    return list(dict.fromkeys(c for section in sections for c in _classes_in(section)))


def _configuration_page() -> str:
    fields = [f.name for f in dataclasses.fields(RunConfig)]
    parts = [
        "# Configuration",
        _GENERATED,
        "One YAML file describes a pipeline; `--set section.option=value` overrides it. The sections: "
        + _codes(fields)
        + ". `schema` names a preset or a schema file, see [Schema](schema.md). An option that does "
        "not exist is refused, and the message names the nearest one. Examples: `configs/`.",
        "Changing an option repeats only what depends on it: the step that its section names, and the "
        "steps after it. The steps: "
        + ", ".join(step.value for step in Changes if step is not Changes.NOTHING)
        + ". See [Steps and their identities](../concepts/steps.md).",
        "## model",
        "The options of every model; those of single models, and of the normalizations: "
        f"[Models](models.md). {_repeats(ModelConfig.changes)}",
        _option_table(describe_models().model_options),
    ]
    for config in config_classes():
        parts += [f"## {_heading(config)}", *_class_parts(config)]
    return _page(parts)


def _heading(config: type[BaseModel]) -> str:
    label = str(getattr(config, "label", None) or "preprocess")
    siblings = typing.get_args(LossConfig)
    return f"{label}: {config.model_fields['kind'].default}" if config in siblings else label


def _class_parts(config: type[BaseModel]) -> list[str]:
    label = str(getattr(config, "label", None) or "preprocess")
    step = getattr(config, "changes", None)
    return [_prose(config), _repeats(step), _field_table(config, prefix=f"{label}.")]


def _repeats(step: Changes | None) -> str:
    """What runs again when an option changes."""
    if step is None:
        return ""
    nothing = step is Changes.NOTHING
    return f"Changing it repeats {'nothing' if nothing else f'the run from the step *{step}*'}."


# ------------------------------------------------------------------------------------- models


def _models_page() -> str:
    listing = describe_models()
    parts = [
        "# Models, normalizations",
        _GENERATED,
        "The same list, as text or JSON: `clickparity models`. To add one: "
        "[a model](../howto/model.md), [a normalization](../howto/norm.md).",
        "## Models",
        "Choose one with `model.name`. The paper's own normalization is given for comparison; the "
        "default is the same for all, see `model.norm`.",
        _table(
            ["`model.name`", "what it is", "paper", "its norm"],
            [[f"`{m.name}`", m.title, str(m.paper), m.paper_norm] for m in listing.models],
        ),
        "## Normalizations",
        "Choose one with `model.norm` (its name alone) or `model.norm.kind`.",
        _table(
            ["kind", "what it is", "paper"],
            [[f"`{n.name}`", n.title, str(n.paper)] for n in listing.norms],
        ),
        _option_table(
            [*listing.norm_options, *(option for norm in listing.norms for option in norm.options)]
        ),
        "## Options of single models",
    ]
    for model in listing.models:
        if model.options:
            parts += [f"### {model.name}", _option_table(model.options)]
    return _page(parts)


def _option_table(options: Iterable[OptionEntry]) -> str:
    rows = [[f"`{o.path}`", _literal(o.default), o.values, o.line] for o in options]
    return _table(["option", "default", "values", "meaning"], rows)


# ------------------------------------------------------------------------------------- schema


def _schema_page() -> str:
    parts = [
        "# Schema",
        _GENERATED,
        "A schema is a YAML file that describes one data set. `clickparity schema infer FILE` "
        "proposes one; the presets lie in `pipeline/schemas/`.",
        "```yaml\nname: shop\nsource: {kind: csv}\nlabel: clicked\nfeatures:\n"
        "  - {name: campaign, kind: categorical, min_count: 2}\n"
        '  - {name: "price_*", kind: numeric, log1p: true}   # every column that matches\n'
        "time: {column: time, format: iso}\nsplit: {by: time, validation: 0.1, test: 0.1}\n```",
    ]
    for config in _classes_in(FeatureSchema):
        kind = config.model_fields.get("kind")
        name = f"{config.__name__}: `kind: {kind.default}`" if kind else config.__name__
        parts += [f"## {name}", _prose(config), _field_table(config, prefix="")]
    return _page(parts)


# ------------------------------------------------------------------------------------- exit codes


def _exit_codes_page() -> str:
    rows = [["0", "", "done", "nothing"]]
    seen: dict[int, list[type[Exception]]] = {}
    for name in pipeline.errors.__all__:
        error = getattr(pipeline.errors, name)
        if isinstance(error, type) and hasattr(error, "exit_code"):
            seen.setdefault(int(error.exit_code), []).append(error)
    for code, errors in sorted(seen.items()):
        says = " ".join((inspect.getdoc(errors[0]) or "").split("\n")[0].split())
        names = _codes(error.__name__ for error in errors)
        rows.append([str(code), names, *_ADVICE.get(code, (says, "see the message"))])
    rows.append(["130", "", "stopped by SIGINT (Ctrl-C)", "start the same command again"])
    return _page(
        [
            "# Exit codes",
            _GENERATED,
            "A scheduler must not retry 2, 3 and 4: the answer would be the same.",
            _table(["code", "error", "means", "what to do"], rows),
            "For 2, 3 and 4 the message is one line without a traceback: the rule, the value "
            "received, and the remedy. What to do in detail: [Operating](../operating.md#exit-codes).",
        ]
    )


_ADVICE = {
    1: ("an unexpected fault, or another process holds the lock", "retry; then read the traceback"),
    2: ("wrong configuration or arguments", "fix the configuration; do not retry"),
    3: ("a gate refused: parity, quality or drift", "read the report; do not retry"),
    4: ("the input data is bad", "fix the data; do not retry"),
    143: ("stopped by SIGTERM; the state is saved", "start the same command again"),
}


# ------------------------------------------------------------------------------------- pieces


def _classes_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The config class of an annotation and those of its fields, outer ones first."""
    if isinstance(annotation, type) and issubclass(annotation, ModelConfig):
        return
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _classes_in(field.annotation)
    for argument in typing.get_args(annotation):
        yield from _classes_in(argument)


def _field_table(config: type[BaseModel], prefix: str) -> str:
    lines, rows = _attributes(config), []
    for name, field in config.model_fields.items():
        if prefix == "" and name == "kind":
            continue  # the heading names it
        default = field.get_default(call_default_factory=True)
        shown = "required" if field.is_required() else _literal(_plain(default))
        meaning = lines.get(name, "")
        stated = next((m for m in field.metadata if isinstance(m, Changes)), None)
        if stated is not None:
            meaning += f" {_repeats(stated)}"
        rows.append([f"`{prefix}{name}`", shown, _values(field.annotation), meaning])
    return _table(["option", "default", "values", "meaning"], rows) if rows else "No options."


def _attributes(config: type[BaseModel]) -> dict[str, str]:
    """The lines of the Attributes sections of a class and of those that it inherits fields from."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel and "__doc__" in vars(base):
            _, _, section = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
            pattern = r"^    ([\w, ]+): (.*(?:\n {8}.*)*)"
            for names, text in re.findall(pattern, section.split("\n\n")[0], re.MULTILINE):
                found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def _prose(config: type[BaseModel]) -> str:
    """The docstring up to its Attributes, indented parts as literal text."""
    text = inspect.cleandoc(config.__doc__ or "").partition("\nAttributes:")[0].rstrip()
    parts = []
    for paragraph in text.split("\n\n"):
        is_literal = paragraph.startswith("    ") or re.search(r"\S {3,}\S", paragraph)
        parts.append(f"```text\n{textwrap.dedent(paragraph)}\n```" if is_literal else paragraph)
    return "\n\n".join(parts)


def _values(annotation: Any) -> str:
    """What an annotation accepts, for people."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _values(args[0])
    if origin is typing.Literal:
        return " | ".join(str(value) for value in args)
    if origin in (typing.Union, types.UnionType):
        names = ["none" if arg is types.NoneType else _values(arg) for arg in args]
        return " or ".join(dict.fromkeys(names))
    if origin is tuple:
        return f"list of {_values(args[0])}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " | ".join(str(member.value) for member in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        label = getattr(annotation, "label", None)
        return f"options of `{label}`" if label else f"`{annotation.__name__}`"
    names_ = {str: "text", int: "integer", float: "number", bool: "true | false"}
    return names_.get(annotation, str(getattr(annotation, "__name__", annotation)))


def _plain(default: Any) -> Any:
    if default is PydanticUndefined:
        return None
    if isinstance(default, BaseModel):
        kind = getattr(default, "kind", None)
        return _plain(kind) if kind is not None else "its own"
    return default.value if isinstance(default, Enum) else default


def _literal(value: Any) -> str:
    if value is None:
        return "none"
    if value in ([], (), ""):
        return "empty"
    return f"`{value if isinstance(value, str) else json.dumps(value, default=str)}`"


def _codes(values: Iterable[Any]) -> str:
    return ", ".join(f"`{value}`" for value in values)


def _table(head: list[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """One line, in which a bar outside of `code` ends no cell."""
    parts = " ".join(text.split()).split("`")
    return "`".join(p if i % 2 else p.replace("|", "\\|") for i, p in enumerate(parts))


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
