"""The generated pages are complete, and the picture shows the imports that there are."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import pipeline.errors
from docs.draw_architecture import draw, read_rooms
from docs.generate import command_parser, config_classes, pages
from docs.hooks import wrong_address
from jobs.command import commands
from jobs.config import RunConfig
from models.config.listing import describe_models
from pipeline.schema import FeatureSchema
from tests.docs.pages import ROOT


@pytest.mark.parametrize("name", commands())
def test_every_argument_of_every_command_is_described(name: str) -> None:
    page = pages()["reference/commands.md"]
    section = page.split(f"### clickparity {name}\n")[1].split("\n### ")[0]
    for action in command_parser(name, commands()[name])._actions:
        shown = action.option_strings[0] if action.option_strings else action.dest.upper()
        assert f"`{shown}" in section or f"`{action.metavar}`" in section
        assert action.help, f"clickparity {name} {shown} has no help"


def test_every_section_and_option_of_the_configuration_is_listed() -> None:
    page = pages()["reference/configuration.md"]
    for field in dataclasses.fields(RunConfig):
        assert f"`{field.name}`" in page
    for config in config_classes():
        label = getattr(config, "label", "preprocess")
        for name in config.model_fields:
            assert f"| `{label}.{name}` |" in page
    for option in describe_models().model_options:
        assert f"| `{option.path}` |" in page


def test_every_model_and_norm_is_listed() -> None:
    page, listing = pages()["reference/models.md"], describe_models()
    for entry in (*listing.models, *listing.norms):
        assert f"| `{entry.name}` |" in page
        assert entry.title in page
        assert all(f"`{option.path}`" in page for option in entry.options)
    assert all(f"`{option.path}`" in page for option in listing.norm_options)


def test_every_field_of_a_schema_is_listed() -> None:
    page = pages()["reference/schema.md"]
    for name in FeatureSchema.model_fields:
        assert f"| `{name}` |" in page
    for kind in ("numeric", "categorical", "sequence", "cross", "datetime", "image", "jsonl"):
        assert f"`kind: {kind}`" in page


def test_every_exit_code_is_listed() -> None:
    page = pages()["reference/exit-codes.md"]
    rows = dict(re.findall(r"^\| (\d+) \|( [^|]*)\|", page, re.MULTILINE))
    for name in pipeline.errors.__all__:
        code = getattr(getattr(pipeline.errors, name), "exit_code", None)
        assert code is None or f"`{name}`" in rows[str(code)]
    assert {"0", "1", "2", "3", "4", "130", "143"} == set(rows)


def test_the_picture_shows_the_rooms_and_counts_the_files_that_import() -> None:
    rooms = {room.name: room for room in read_rooms()}
    assert {"pipeline", "models", "serving", "jobs"} <= set(rooms)
    assert rooms["pipeline"].imports == {}
    picture = draw(list(rooms.values()))
    for room in rooms.values():
        assert f">{room.name}/</text>" in picture
        for count in room.imports.values():
            assert re.search(rf">{count} files? of {room.name}</text>", picture)
    folders = [p.name for p in (ROOT / "serving").iterdir() if (p / "__init__.py").exists()]
    assert {f"{name}/" for name in folders} <= set(rooms["serving"].parts)


def test_an_import_against_the_arrows_is_drawn_in_red(tmp_path: Path) -> None:
    layers = "[importlinter:contract:layers]\ntype = layers\nlayers =\n    above\n    below\n"
    (tmp_path / "setup.cfg").write_text(layers)
    for room, text in (("above", "import below\n"), ("below", "def f():\n    import above.x\n")):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(f'"""The room {room}."""\n')
        (tmp_path / room / "file.py").write_text(text)
    above, below = read_rooms(tmp_path)
    assert above.imports == {"below": 1}
    assert below.imports == {"above": 1}
    picture = draw([above, below])
    assert picture.count('stroke="#c62828"') == 1
    assert ">1 file of below<" in picture


@pytest.mark.parametrize(
    "address", ["https://", "htps://a.org/x", "https://nohost/x", "mailto:x", "https://a .org"]
)
def test_an_external_link_of_a_wrong_form_is_found(address: str) -> None:
    assert wrong_address(address)


def test_good_external_links_pass() -> None:
    for address in ("https://keepachangelog.com/en/1.1.0/", "http://127.0.0.1:8501/v1/models"):
        assert wrong_address(address) == ""
