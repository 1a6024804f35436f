"""The versions of one model that TF Serving watches: publish, list, roll back, prune.

MODELS/NAME/<integer>/ is a version; TF Serving serves the highest integer ("latest 1"), so that
one is called live here. Numbers only grow. `PosixStorage` makes every change atomic;
`serving.repository.objects` says what a `gs://` bucket can promise instead. No TensorFlow here:
loading and warming a copy before it goes live is a function that the caller passes in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pipeline.errors import ConfigError, GateError
from pipeline.paths import RemotePath, parse_path, scheme_of
from serving.export.manifest import MANIFEST_PATH, verify_manifest
from serving.repository.objects import BeamObjects, ObjectStorage
from serving.repository.storage import PosixStorage, VersionStorage
from serving.repository.versions import (
    PublishedVersion,
    PublishOutcome,
    VersionInfo,
    describe_version,
    rollback_target,
)

__all__ = ["ModelRepository", "PublishOutcome", "PublishedVersion", "VersionCheck", "VersionInfo"]

VersionCheck = Callable[[Path], None]
"""Loads a copy once and replays its warm-up; raises when that fails."""

_MODEL_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_VERSION_NAME = re.compile(r"[0-9]{1,18}")  # TF Serving takes what parses as an int64
_GRAPH_FILE = "saved_model.pb"


class ModelRepository:
    """The versions of one model.

    Args:
        models_dir: MODELS, which holds one directory a model: a local path or `gs://...`.
        name: the model's name.
        storage: where the versions lie, when it is neither of the two; tests pass their own.

    Raises:
        ConfigError: if the name is not a model name or the address is of an unknown kind.
    """

    def __init__(
        self,
        models_dir: str | Path | RemotePath,
        name: str,
        *,
        storage: VersionStorage | None = None,
    ) -> None:
        if not _MODEL_NAME.fullmatch(name):
            raise ConfigError(
                "a model's name must be 1 to 128 letters, digits, '_', '-' or '.', and begin with"
                " a letter, a digit or '_'",
                repr(name),
                "It becomes a directory and a part of TF Serving's URL, such as ctr_dcn.",
            )
        self.name = name
        self._storage = storage or _storage_for(models_dir, name)

    def publish(
        self, export_dir: str | Path, *, check: VersionCheck | None = None, force: bool = False
    ) -> PublishedVersion:
        """Makes an export the live version, or says why there was nothing to do.

        The export is copied beside, flushed, its copy's hashes verified, the check run on the copy,
        and the copy renamed to the next integer. Nothing is done when the fingerprint is live
        already (and the live bytes are sound), nor when it is the one that the live version
        replaced by a rollback: a scheduled run that repeats itself must not undo an operator's
        decision.

        Args:
            export_dir: a local SavedModel with a manifest.
            check: loads the copy once and replays its warm-up, before anybody can see it.
            force: publish even so.

        Raises:
            ConfigError: if the export or MODELS is not a directory that can be used.
            GateError: if the export or its copy is not as its manifest says.
            ClickparityError: if somebody else is publishing, or the disk is full.
            Exception: whatever `check` raises; nothing is published then.
        """
        source = Path(export_dir)
        manifest = verify_manifest(source, contents=False)  # the copy is read byte by byte
        if _GRAPH_FILE not in manifest.files:
            raise GateError(
                "an export must be a SavedModel", f"no {_GRAPH_FILE} in {source}", "Export again."
            )
        fingerprint = manifest.fingerprint
        with self._storage.lock():
            self._storage.remove_leftovers()
            versions = self.versions()
            live = versions[-1] if versions else None
            if live and not force:
                outcome = self._nothing_to_do(live, fingerprint)
                if outcome is not None:
                    return outcome
            number = self._place(source, check, {})
            message = f"published {fingerprint} as version {number} of {self.name}"
            return self._answer(number, fingerprint, PublishOutcome.PUBLISHED, message)

    def _nothing_to_do(self, live: VersionInfo, fingerprint: str) -> PublishedVersion | None:
        if fingerprint in live.rejected_fingerprints:
            return self._answer(
                live.number,
                fingerprint,
                PublishOutcome.ROLLED_BACK,
                f"nothing published: version {live.number} rolled {fingerprint} back; force the "
                "publish to serve it again",
            )
        if fingerprint != live.fingerprint:
            return None
        try:
            with self._storage.local_copy(live.child) as directory:
                verify_manifest(directory)
        except GateError:
            return None  # the live bytes are damaged: publishing the same again is the cure
        return self._answer(
            live.number,
            fingerprint,
            PublishOutcome.ALREADY_LIVE,
            f"nothing published: {fingerprint} is live already, as version {live.number}",
        )

    def _answer(
        self, number: int, fingerprint: str, outcome: PublishOutcome, message: str
    ) -> PublishedVersion:
        path = f"{self._storage.location}/{number}"
        return PublishedVersion(number, path, fingerprint, outcome, message)

    def _place(self, source: Path, check: VersionCheck | None, overrides: dict[str, bytes]) -> int:
        """Copies, proves and promotes; on any failure nothing is left. The lock is held."""
        staged = self._storage.stage(source, overrides)
        try:
            with self._storage.local_copy(staged) as directory:
                try:
                    verify_manifest(directory)
                except GateError:
                    verify_manifest(source)  # blames the export itself, where the fault is there
                    raise
                if check is not None:
                    check(directory)
                    # Also in bytes of the same size, a check must not have changed what it checked.
                    verify_manifest(directory)
            number = max(self._numbers(), default=0) + 1
            self._storage.promote(staged, number)
        except BaseException:
            if staged in self._storage.children():
                self._storage.remove(staged)
            raise
        self._storage.remove_broken_versions()
        return number

    def _numbers(self) -> dict[int, str]:
        # "007" is version 7 to a server; a canonical name wins over it.
        children = [child for child in self._storage.children() if _VERSION_NAME.fullmatch(child)]
        return {int(child): child for child in sorted(children, key=len, reverse=True)}

    def versions(self) -> list[VersionInfo]:
        """All versions, oldest first; takes no lock and reads manifests, names and sizes only.

        Raises:
            ConfigError: if MODELS/NAME is a file or cannot be read.
        """
        numbers = sorted(self._numbers().items())
        highest = numbers[-1][0] if numbers else 0
        infos = [describe_version(self._storage, *item, highest) for item in numbers]
        return [info for info in infos if info is not None]

    def live(self) -> VersionInfo | None:
        """The version that TF Serving serves; None before the first publish."""
        versions = self.versions()
        return versions[-1] if versions else None

    def _require_model(self) -> None:
        # Before the lock, which would make the directory of a misspelt model.
        if not self._numbers():
            raise ConfigError(
                "a model must have versions to roll back or prune",
                f"none in {self._storage.location}",
                "Check --models and --name, or publish first.",
            )

    def rollback(
        self, to: int | None = None, *, check: VersionCheck | None = None
    ) -> PublishedVersion:
        """Publishes an older version's bytes under the next number.

        Without `to`, the version that was live before the present one. Where the present one is
        a rollback itself, an operator who rolls back again means "further back", not "undo my
        rollback" (that would serve the bad version again): the version before the one whose bytes
        are live, skipping every fingerprint that was rolled back on the way. `to` overrules that.

        Args:
            to: the version to serve again; any listed one but the live one.
            check: as in `publish`.

        Raises:
            ConfigError: if there is no such version, or none to go back to.
            GateError: if the older version's bytes are no longer as its manifest says.
            ClickparityError: if somebody else is publishing, or the disk is full.
        """
        self._require_model()
        with self._storage.lock():
            self._storage.remove_leftovers()
            versions = self.versions()
            target = rollback_target(versions, to)
            live = versions[-1]
            rejected = {
                *live.rejected_fingerprints,
                *target.rejected_fingerprints,
                live.fingerprint,
            }
            rejected -= {target.fingerprint, None}
            with self._storage.local_copy(target.child) as source:
                manifest = verify_manifest(source)
                override = manifest.updated(
                    rollback_of=target.number,
                    rollback_origin=target.origin,
                    rejected_fingerprints=sorted(str(fingerprint) for fingerprint in rejected),
                )
                number = self._place(source, check, {MANIFEST_PATH: override.to_json()})
            message = (
                f"version {number} of {self.name} serves the bytes of version {target.number}"
                f" again, instead of version {live.number}"
            )
            return self._answer(number, manifest.fingerprint, PublishOutcome.PUBLISHED, message)

    def prune(self, keep: int) -> list[int]:
        """Deletes all versions but the newest `keep`, and returns the numbers deleted.

        The live version is the newest, so it always stays. Keep at least 2 to be able to roll back.

        Raises:
            ConfigError: if keep < 1, or the model has no version.
            ClickparityError: if somebody else is publishing.
        """
        if keep < 1:
            raise ConfigError("prune must keep at least the live version", keep, "Try keep=2.")
        self._require_model()
        with self._storage.lock():
            self._storage.remove_leftovers()
            doomed = sorted(self._numbers().items())[:-keep]
            for _, child in doomed:
                self._storage.remove(child)
            return [number for number, _ in doomed]


def _storage_for(models_dir: str | Path | RemotePath, name: str) -> VersionStorage:
    scheme = scheme_of(str(models_dir))
    if scheme not in ("", "gs"):
        raise ConfigError(
            "MODELS must be a local directory or a gs:// address",
            models_dir,
            "TF Serving reads no other store by itself; publish locally and let a side-car copy.",
        )
    where = parse_path(models_dir, "MODELS", schemes=("gs",))
    if isinstance(where, RemotePath):
        return ObjectStorage(where.address, name, BeamObjects())
    return PosixStorage(where, name)
