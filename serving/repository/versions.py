"""What a version in a model repository says of itself, and which one a rollback goes back to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any

from pipeline.errors import ConfigError, GateError
from serving.export.manifest import MANIFEST_PATH, Manifest, compare_files, parse_manifest
from serving.repository.storage import VersionStorage

__all__ = [
    "PublishOutcome",
    "PublishedVersion",
    "VersionInfo",
    "describe_version",
    "rollback_target",
]


class PublishOutcome(Enum):
    """What a publish did."""

    PUBLISHED = "published"
    ALREADY_LIVE = "already live"
    ROLLED_BACK = "rolled back"


@dataclass(frozen=True)
class PublishedVersion:
    """The answer of a publish or rollback.

    Attributes:
        number: the version that is live now.
        path: where it lies.
        fingerprint: of the run that was asked to be published.
        outcome: whether anything was published, and if not, why.
        message: the same for people, one sentence.
    """

    number: int
    path: str
    fingerprint: str
    outcome: PublishOutcome
    message: str


@dataclass(frozen=True)
class VersionInfo:
    """One version, as `versions` lists it.

    Attributes:
        number: the directory's name as an integer.
        created: when its manifest was written, UTC; None when that cannot be read.
        fingerprint: of the run that made it; None likewise.
        metrics: name -> value, as recorded at the export.
        live: whether TF Serving's default policy serves it (the highest number).
        rollback_of: the version whose bytes these are, when a rollback made it.
        problem: what a look at its names and sizes found wrong; None when nothing.
        child: its directory's name, which a server takes for the same number ("007" is 7).
        manifest: all of its manifest; None when that cannot be read.
    """

    number: int
    created: datetime | None
    fingerprint: str | None
    metrics: dict[str, Any]
    live: bool
    rollback_of: int | None
    problem: str | None
    child: str = field(repr=False)
    manifest: Manifest | None = field(repr=False, compare=False)

    @property
    def origin(self) -> int:
        """The number under which its bytes were first published, before any rollback."""
        extra = self.manifest.extra if self.manifest else {}
        return int(extra.get("rollback_origin") or self.number)

    @property
    def rejected_fingerprints(self) -> frozenset[str]:
        """What the rollbacks that led to this version took out of service."""
        extra = self.manifest.extra if self.manifest else {}
        return frozenset(extra.get("rejected_fingerprints") or ())


def describe_version(
    storage: VersionStorage, number: int, child: str, highest: int
) -> VersionInfo | None:
    """Reads what one version says of itself; None when it was pruned meanwhile.

    Args:
        storage: where it lies.
        number: its number.
        child: its directory's name.
        highest: the highest number there is, which is the live one.
    """
    where = f"{storage.location}/{child}"
    manifest: Manifest | None = None
    problem: str | None = None
    try:
        sizes = storage.file_sizes(child)
        if MANIFEST_PATH not in sizes:
            problem = f"no {MANIFEST_PATH}: not published by clickparity, or half copied"
        else:
            manifest = parse_manifest(storage.read(child, MANIFEST_PATH), where)
            compare_files(manifest, sizes, where, None)
    except GateError as error:
        problem = str(error)
    except NotADirectoryError:
        problem = "a file where a directory is expected"
    except FileNotFoundError:
        if child not in storage.children():
            return None  # pruned while we looked
        problem = "a file vanished while it was read"
    extra = manifest.extra if manifest else {}
    return VersionInfo(
        number=number,
        created=manifest.created if manifest else None,
        fingerprint=manifest.fingerprint if manifest else None,
        metrics=manifest.metrics if manifest else {},
        live=number == highest,
        rollback_of=extra.get("rollback_of"),
        problem=problem,
        child=child,
        manifest=manifest,
    )


def rollback_target(versions: list[VersionInfo], to: int | None) -> VersionInfo:
    """The version that a rollback serves again; `ModelRepository.rollback` says which and why.

    Raises:
        ConfigError: if `to` is not an older version, or there is none to go back to.
    """
    listed = ", ".join(str(version.number) for version in versions) or "none"
    if to is not None:
        for version in versions[:-1]:
            if version.number == to:
                return version
        raise ConfigError(
            "a rollback must name an older version", to, f"The versions are: {listed}, last live."
        )
    live = versions[-1]
    for version in reversed(versions[:-1]):
        if version.number < live.origin and version.fingerprint not in live.rejected_fingerprints:
            return version
    raise ConfigError(
        "a rollback needs an older version that was not rolled back itself",
        f"the versions {listed}",
        "Publish another model, or name a version with --to.",
    )
