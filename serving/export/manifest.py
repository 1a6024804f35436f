"""What an export contains, written down: every file's size and SHA-256, in one JSON file.

A server notices little about a half-copied model: without `variables/` it loads and fails each
request, with a truncated vocabulary it loads and gives wrong scores. So an export carries
`assets.extra/manifest.json`, and whoever copies it checks the copy against that. TF Serving
ignores the file. This module imports no TensorFlow: a run with nothing to do asks it whether
there is something to do.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, GateError

__all__ = [
    "MANIFEST_PATH",
    "FileRecord",
    "Manifest",
    "compare_files",
    "file_sizes",
    "parse_manifest",
    "verify_manifest",
    "write_manifest",
]

MANIFEST_PATH = "assets.extra/manifest.json"
"""Where the manifest lies in an export; `assets.extra` is TF Serving's folder for companions."""

_FORMAT = 1
_EXPORT_AGAIN = "Export again; never edit an export in place."


@dataclass(frozen=True)
class FileRecord:
    """One file as it was when the manifest was written."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What an export contains and where it comes from.

    Attributes:
        fingerprint: of the run (config and inputs) that made the export.
        created: when this manifest was written, UTC.
        files: path relative to the export, with `/` -> its record; all files but the manifest.
        extra: free-form JSON fields; `metrics` (name -> number or None) is the one that lists show.
    """

    fingerprint: str
    created: datetime
    files: Mapping[str, FileRecord]
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, Any]:
        """The export's metrics; empty when none were recorded."""
        metrics = self.extra.get("metrics")
        return dict(metrics) if isinstance(metrics, Mapping) else {}

    def updated(self, **extra: object) -> Manifest:
        """The same files under a new time, with some of the free-form fields set anew."""
        return replace(self, created=_now(), extra={**self.extra, **extra})

    def to_json(self) -> bytes:
        """The manifest as a file's content, sealed with a digest of itself.

        Raises:
            ConfigError: if a free-form field is not strict JSON (NaN and infinity are not).
        """
        body = {
            "format": _FORMAT,
            "fingerprint": self.fingerprint,
            "created": self.created.isoformat(),
            "files": {
                path: {"size_bytes": record.size_bytes, "sha256": record.sha256}
                for path, record in sorted(self.files.items())
            },
            "extra": dict(self.extra),
        }
        try:
            sealed = {**body, "seal": _seal(body)}
            return (json.dumps(sealed, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
        except (TypeError, ValueError) as error:
            raise ConfigError(
                "a manifest's free-form fields must be strict JSON",
                error,
                "Leave the field out, or write null for a metric that is not a number.",
            ) from error


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _seal(body: Mapping[str, Any]) -> str:
    # No other file holds the manifest's own hash; without it a flipped bit in `fingerprint`
    # would be believed.
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _sha256(stream: BufferedReader) -> str:
    return hashlib.file_digest(stream, "sha256").hexdigest()


def file_sizes(directory: Path) -> dict[str, int]:
    """Every file below a local directory: path relative to it, with `/` -> size in bytes.

    Raises:
        FileNotFoundError: if the directory does not exist.
        NotADirectoryError: if it is a file.
        GateError: if it holds anything but regular files and directories: a link's target is not
            part of the export and would be missing or different after a copy.
    """
    sizes: dict[str, int] = {}
    pending = [directory]
    while pending:
        folder = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                relative = Path(entry.path).relative_to(directory).as_posix()
                if entry.is_dir(follow_symlinks=False):
                    pending.append(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    sizes[relative] = entry.stat(follow_symlinks=False).st_size
                else:
                    raise GateError(
                        "an export must hold regular files only",
                        f"{relative} in {directory}, a link or special file",
                        "Replace it by the file itself and write the manifest again.",
                    )
    return sizes


def write_manifest(
    export_dir: str | Path, *, fingerprint: str, extra: Mapping[str, Any]
) -> Manifest:
    """Hashes every file of a finished export and writes its manifest, atomically.

    Args:
        export_dir: a local SavedModel directory to which nothing will be added any more.
        fingerprint: of the run that made it; publishing recognises a finished job by it.
        extra: free-form JSON fields, such as `metrics={"auc": 0.79}`.

    Raises:
        ConfigError: if the directory is none, or is empty, the fingerprint is empty, or `extra` is
            not strict JSON.
        GateError: if the export holds links or special files.
    """
    directory = _export_directory(export_dir)
    if not fingerprint:
        raise ConfigError(
            "an export must carry the fingerprint of its run", repr(fingerprint), "Pass the run id."
        )
    target = directory / MANIFEST_PATH
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)  # of a writer that was killed; it would count as a file
    records = {}
    for path in sorted(file_sizes(directory)):
        if path != MANIFEST_PATH:
            with open(directory / path, "rb") as stream:
                digest = _sha256(stream)
                records[path] = FileRecord(size_bytes=stream.tell(), sha256=digest)
    if not records:
        raise ConfigError("an export must hold files", f"none in {directory}", "Export first.")
    manifest = Manifest(fingerprint=fingerprint, created=_now(), files=records, extra=dict(extra))
    content = manifest.to_json()
    target.parent.mkdir(exist_ok=True)
    with open(temporary, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, target)
    return manifest


def parse_manifest(content: bytes, where: str) -> Manifest:
    """Reads a manifest's content and checks its seal.

    Raises:
        GateError: if it is truncated, altered, or of a format this version does not know.
    """
    try:
        body = json.loads(content)
        seal = body.pop("seal")
        if body["format"] != _FORMAT:
            raise ValueError(f"format {body['format']!r}, this version reads {_FORMAT}")
        if seal != _seal(body):
            raise ValueError("its content does not match its seal")
        return Manifest(
            fingerprint=body["fingerprint"],
            created=datetime.fromisoformat(body["created"]),
            files={
                path: FileRecord(size_bytes=record["size_bytes"], sha256=record["sha256"])
                for path, record in body["files"].items()
            },
            extra=body["extra"],
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise GateError(
            "an export's manifest must be readable and whole",
            f"{where}/{MANIFEST_PATH}: {reason}",
            _EXPORT_AGAIN,
        ) from error


def compare_files(
    manifest: Manifest,
    sizes: Mapping[str, int],
    where: str,
    open_file: Callable[[str], BufferedReader] | None,
) -> None:
    """Compares what is there with what the manifest says.

    Args:
        manifest: what should be there.
        sizes: what is there: relative path -> size in bytes, the manifest itself included.
        where: the directory's name, for the message.
        open_file: opens a file by its relative path to hash it; None compares names and sizes only.

    Raises:
        GateError: naming every missing, extra, truncated, grown or altered file.
    """
    faults = []
    for path, record in sorted(manifest.files.items()):
        size = sizes.get(path)
        expected = f"{record.size_bytes} bytes expected"
        if size is None:
            faults.append(f"{path} is missing")
        elif size != record.size_bytes:
            kind = "truncated" if size < record.size_bytes else "longer than it was"
            faults.append(f"{path} is {kind} ({size} bytes, {expected})")
        elif open_file is not None:
            with open_file(path) as stream:
                if _sha256(stream) != record.sha256:
                    faults.append(f"{path} is altered (its SHA-256 differs)")
    faults += [f"{path} is extra" for path in sorted(set(sizes) - {MANIFEST_PATH, *manifest.files})]
    if faults:
        raise GateError(
            f"every file in {where} must be as its manifest says", "; ".join(faults), _EXPORT_AGAIN
        )


def verify_manifest(export_dir: str | Path, *, contents: bool = True) -> Manifest:
    """Proves that a local export is what its manifest says, reading every byte.

    Args:
        export_dir: the export, or a published version.
        contents: False compares names and sizes only, which costs one listing.

    Raises:
        ConfigError: if the directory does not exist or is a file.
        GateError: if the manifest is missing or damaged, or any file is not as it says.
    """
    directory = _export_directory(export_dir)
    sizes = file_sizes(directory)
    if MANIFEST_PATH not in sizes:
        raise GateError(
            "an export must carry a manifest",
            f"no {MANIFEST_PATH} in {directory}",
            "Make the export with `clickparity export`, which writes it.",
        )
    manifest = parse_manifest((directory / MANIFEST_PATH).read_bytes(), str(directory))

    def open_file(path: str) -> BufferedReader:
        return open(directory / path, "rb")

    compare_files(manifest, sizes, str(directory), open_file if contents else None)
    return manifest


def _export_directory(export_dir: str | Path) -> Path:
    directory = Path(export_dir)
    if not directory.is_dir():
        state = "a file" if directory.exists() else "which does not exist"
        raise ConfigError(
            "an export must be a directory", f"{directory}, {state}", "Give a SavedModel directory."
        )
    return directory
