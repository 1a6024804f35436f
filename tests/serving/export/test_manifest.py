"""The manifest: hashes by hand, and every way in which a copy can differ from it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, GateError
from serving.export.manifest import MANIFEST_PATH, verify_manifest, write_manifest


@pytest.fixture
def export(tmp_path: Path) -> Path:
    directory = tmp_path / "export"
    for path, content in {
        "saved_model.pb": b"graph",
        "variables/variables.index": b"",
        "variables/variables.data-00000-of-00001": bytes(range(256)) * 9000,
        "assets/vocabulary.txt": "ключ\n".encode(),
    }.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(content)
    return directory


def test_manifest_records_what_coreutils_says(export: Path) -> None:
    write_manifest(export, fingerprint="f1", extra={"metrics": {"auc": 0.79}, "note": "пробный"})
    body = json.loads((export / MANIFEST_PATH).read_text())
    # sha256sum of nothing and of "graph", from coreutils.
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert body["files"]["variables/variables.index"] == {"size_bytes": 0, "sha256": empty}
    large = hashlib.sha256((export / "variables/variables.data-00000-of-00001").read_bytes())
    assert body["files"]["variables/variables.data-00000-of-00001"] == {
        "size_bytes": 2_304_000,
        "sha256": large.hexdigest(),
    }
    assert sorted(body["files"]) == [
        "assets/vocabulary.txt",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    ]
    manifest = verify_manifest(export)
    assert manifest.fingerprint == "f1"
    assert manifest.metrics == {"auc": 0.79}
    assert manifest.extra["note"] == "пробный"
    assert manifest.created.tzinfo is not None


def test_writing_twice_replaces_and_a_killed_writers_leftover_is_no_file(export: Path) -> None:
    write_manifest(export, fingerprint="f1", extra={})
    (export / "assets.extra/.manifest.json.tmp").write_bytes(b"{half")
    (export / "assets/vocabulary.txt").write_bytes(b"other")
    write_manifest(export, fingerprint="f2", extra={})
    assert verify_manifest(export).fingerprint == "f2"


def test_every_fault_is_named(export: Path) -> None:
    write_manifest(export, fingerprint="f1", extra={})
    (export / "variables/variables.data-00000-of-00001").write_bytes(b"short")
    (export / "saved_model.pb").write_bytes(b"grapH")
    (export / "assets/vocabulary.txt").unlink()
    (export / "variables/variables.index").write_bytes(b"1")
    (export / "assets/new.txt").write_bytes(b"")
    with pytest.raises(GateError) as caught:
        verify_manifest(export)
    assert caught.value.received == (
        "assets/vocabulary.txt is missing; "
        "saved_model.pb is altered (its SHA-256 differs); "
        "variables/variables.data-00000-of-00001 is truncated (5 bytes, 2304000 bytes expected); "
        "variables/variables.index is longer than it was (1 bytes, 0 bytes expected); "
        "assets/new.txt is extra"
    )


def test_names_and_sizes_alone_do_not_see_an_altered_byte(export: Path) -> None:
    write_manifest(export, fingerprint="f1", extra={})
    (export / "saved_model.pb").write_bytes(b"grapH")
    verify_manifest(export, contents=False)
    (export / "saved_model.pb").write_bytes(b"grap")
    with pytest.raises(GateError, match=r"saved_model\.pb is truncated"):
        verify_manifest(export, contents=False)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_to_the_manifest_itself_is_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("export")
    (directory / "saved_model.pb").write_bytes(b"graph")
    write_manifest(directory, fingerprint="abc", extra={"metrics": {"auc": 0.5}})
    path = directory / MANIFEST_PATH
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 2), label="place")
    if data.draw(st.booleans(), label="truncate"):
        content = content[:place]
    else:
        bit = data.draw(st.integers(0, 7), label="bit")
        content[place] ^= 1 << bit
    path.write_bytes(bytes(content))
    try:
        manifest = verify_manifest(directory)
    except GateError:
        return
    # White space may change and mean the same; nothing that is read may.
    assert (manifest.fingerprint, manifest.metrics) == ("abc", {"auc": 0.5})


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{}", b'{"seal": 1, "format": 9}'])
def test_what_is_no_manifest_is_refused(export: Path, content: bytes) -> None:
    (export / "assets.extra").mkdir()
    (export / MANIFEST_PATH).write_bytes(content)
    with pytest.raises(GateError, match="manifest must be readable and whole"):
        verify_manifest(export)


def test_missing_manifest_directory_and_export(export: Path, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"no assets\.extra/manifest\.json"):
        verify_manifest(export)
    with pytest.raises(ConfigError, match="does not exist"):
        verify_manifest(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="a file"):
        verify_manifest(export / "saved_model.pb")


def test_links_are_refused(export: Path) -> None:
    (export / "assets/link").symlink_to(export / "saved_model.pb")
    with pytest.raises(GateError, match="regular files only; got assets/link"):
        write_manifest(export, fingerprint="f1", extra={})
    (export / "assets/link").unlink()
    os.symlink(export / "variables", export / "more")
    with pytest.raises(GateError, match="more"):
        write_manifest(export, fingerprint="f1", extra={})


@pytest.mark.parametrize("extra", [{"metrics": {"auc": float("nan")}}, {"when": object()}])
def test_extra_must_be_strict_json_and_nothing_is_written(export: Path, extra: dict) -> None:
    with pytest.raises(ConfigError, match="strict JSON"):
        write_manifest(export, fingerprint="f1", extra=extra)
    assert not (export / MANIFEST_PATH).exists()


def test_empty_fingerprint_and_empty_export(export: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fingerprint"):
        write_manifest(export, fingerprint="", extra={})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="must hold files"):
        write_manifest(tmp_path / "empty", fingerprint="f1", extra={})


def test_modules_import_neither_tensorflow_nor_beam() -> None:
    code = (
        "import sys, serving.repository.repository\n"
        "heavy = {'tensorflow', 'tf_keras', 'apache_beam', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
