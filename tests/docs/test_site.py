"""The built site: asks nothing of other hosts, and a page with a broken link does not build.

Run by `make docs`, which builds site/ first; needs the extra `docs`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.site
SITE = ROOT / "site"
_LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class _Requests(HTMLParser):
    """The addresses that a browser loads by itself when it shows a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in ("canonical", "next", "prev"):
            return
        self.found.append(values.get(_LOADED.get(tag, ""), "") or "")


def _is_outside(address: str) -> bool:
    return bool(re.match(r"(?:[a-z][a-z0-9+.-]*:)?//", address))


def test_no_page_loads_anything_from_another_host() -> None:
    html = sorted(SITE.rglob("*.html"))
    assert len(html) > 20, "build the site first: make docs"
    for page in html:
        requests = _Requests()
        requests.feed(page.read_text(encoding="utf-8"))
        assert [a for a in requests.found if _is_outside(a)] == [], page
    for sheet in SITE.rglob("*.css"):
        urls = re.findall(r"(?:url\(|@import\s+)[\"']?([^\"')]+)", sheet.read_text())
        assert [u for u in urls if _is_outside(u)] == [], sheet


def test_generated_pages_are_there() -> None:
    for name in ("commands", "configuration", "models", "schema", "exit-codes", "api"):
        assert (SITE / "reference" / f"{name}.html").is_file()
    assert (SITE / "architecture.svg").read_text().startswith("<svg")
    assert "docs.generate" not in (SITE / "reference" / "api.html").read_text()


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("[a](missing.md)", "missing.md"),
        ("[a](other.md#nowhere)", "#nowhere"),
        ("![a](missing.png)", "missing.png"),
        ("[a](htps://example.org)", "must begin with https://"),
        ("::: pipeline.errors.NoSuchError", "NoSuchError"),
    ],
    ids=["page", "anchor", "picture", "external", "name"],
)
def test_a_broken_link_fails_the_build_and_is_named(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.md").write_text(f"# Start\n\n{text}\n\n[good](other.md#there)\n")
    (tmp_path / "pages" / "other.md").write_text("# Other\n\n## There\n")
    (tmp_path / "hooks.py").write_text("from docs.hooks import on_page_markdown\n")
    (tmp_path / "mkdocs.yml").write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\ndocs_dir: pages\nsite_dir: built\nhooks: [hooks.py]\n"
        "extra_css: []\nnav: [index.md, other.md]\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(tmp_path / "mkdocs.yml")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert complaint in done.stderr
    assert "index.md" in done.stderr
