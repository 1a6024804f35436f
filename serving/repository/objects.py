"""Published versions in an object store (`gs://`), which has neither directories nor renames.

What is guaranteed, and what is not:

- A version is uploaded under a staging prefix, downloaded again, its hashes compared and the
  caller's check run on those bytes, before anything with an integer name exists.
- It then gets its number by copies inside the store, `saved_model.pb` last, after the sizes of all
  others were looked up. A server that polls in between (seconds, not the minutes of an upload)
  fails to load the number, keeps the old version serving, and tries again 60 s later, 5 times.
- NOT guaranteed: atomicity. A publisher killed between the first and the last copy leaves an
  integer prefix without `saved_model.pb`. No server can serve it; running ones keep the version
  they have, but one that starts at that moment finds nothing that it can load until somebody
  publishes again, which takes the next number (a server never retries a number it gave up on) and
  deletes the broken one.
- Two publishers: each writes a claim, then lists all claims, and withdraws when not alone. The
  store lists what was written before (GCS does), so never do both go on; now and then both
  withdraw. A killed publisher's claim blocks others until it is an hour old, by the clocks of the
  machines. Kubernetes' `concurrencyPolicy: Forbid` is the better guard.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pipeline.errors import ClickparityError, ConfigError
from pipeline.paths import reachable
from serving.export.manifest import file_sizes
from serving.repository.storage import STAGING_PREFIX, busy_error

__all__ = ["BeamObjects", "ObjectClient", "ObjectStorage"]

_CLAIM_PREFIX = ".publishing-"
_CLAIM_LIFE_S = 3600.0
_CHUNK_BYTES = 1 << 20
_GRAPH_FILE = "saved_model.pb"  # a loader's first read: what lacks it cannot be served


class ObjectClient(Protocol):
    """The five things that publishing asks of an object store; every path is a full address."""

    def list(self, prefix: str) -> dict[str, int]:
        """All objects whose address begins with `prefix`: address -> size in bytes."""

    def open(self, path: str) -> BinaryIO:
        """An object to read."""

    def create(self, path: str) -> BinaryIO:
        """An object to write; it exists when closed, whole."""

    def copy(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        """Copies objects inside the store."""

    def delete(self, paths: Sequence[str]) -> None:
        """Deletes objects; one that is gone already is no error."""


class BeamObjects:
    """`ObjectClient` over Beam's FileSystems, imported late; it imports no TensorFlow."""

    def __init__(self) -> None:
        try:
            from apache_beam.io.filesystem import CompressionTypes
            from apache_beam.io.filesystems import FileSystems
        except ImportError as error:
            raise ConfigError(
                "gs:// needs apache_beam", error, "Install clickparity[gcp]."
            ) from error
        self._files: Any = FileSystems
        # AUTO would hand out and write an asset named *.gz decompressed: other bytes, other hash.
        self._as_is = {"compression_type": CompressionTypes.UNCOMPRESSED}

    def list(self, prefix: str) -> dict[str, int]:
        """See `ObjectClient`."""
        with reachable(prefix, "MODELS"):
            (found,) = self._files.match([f"{prefix}**"])
        return {entry.path: entry.size_in_bytes for entry in found.metadata_list}

    def open(self, path: str) -> BinaryIO:
        """See `ObjectClient`."""
        stream: BinaryIO = self._files.open(path, **self._as_is)
        return stream

    def create(self, path: str) -> BinaryIO:
        """See `ObjectClient`."""
        with reachable(path, "MODELS"):
            stream: BinaryIO = self._files.create(path, **self._as_is)
        return stream

    def copy(self, sources: Sequence[str], targets: Sequence[str]) -> None:
        """See `ObjectClient`."""
        self._files.copy(list(sources), list(targets))

    def delete(self, paths: Sequence[str]) -> None:
        """See `ObjectClient`."""
        present = [path for path in paths if self._files.exists(path)]
        if present:
            self._files.delete(present)


class ObjectStorage:
    """MODELS/NAME in an object store; see the module's text for what that can promise.

    Args:
        models_dir: MODELS, such as `gs://bucket/models`.
        name: the model's name.
        client: the store.
        now: seconds since 1970; a test passes its own clock.
    """

    def __init__(
        self, models_dir: str, name: str, client: ObjectClient, now: Callable[[], float] = time.time
    ) -> None:
        if any(character in models_dir for character in "*?[]"):
            raise ConfigError(
                "an object store's address must hold no wildcard", models_dir, "Rename the prefix."
            )
        self.location = f"{models_dir.rstrip('/')}/{name}"
        self._client, self._now = client, now
        self._claim: str | None = None
        self._claimed_at = 0.0

    def _address(self, child: str, path: str = "") -> str:
        return f"{self.location}/{child}/{path}"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Claims the model's name; see the module's text."""
        own = f"{self.location}/{_CLAIM_PREFIX}{uuid.uuid4().hex}"
        self._claimed_at = self._now()
        record = {"pid": os.getpid(), "host": socket.gethostname(), "time": self._claimed_at}
        self._write(own, json.dumps(record).encode())
        try:
            for claim in self._client.list(f"{self.location}/{_CLAIM_PREFIX}"):
                if claim != own:
                    self._yield_or_break(claim)
            self._claim = own
            yield
        finally:
            self._claim = None
            self._client.delete([own])

    def _yield_or_break(self, claim: str) -> None:
        try:
            record = json.loads(self._read(claim))
        except FileNotFoundError:
            return  # withdrawn meanwhile
        if self._now() - record["time"] < _CLAIM_LIFE_S:
            raise busy_error(self.location, f"process {record['pid']} on {record['host']}")
        self._client.delete([claim])

    def _require_claim(self) -> None:
        # A publisher that slept through its claim's life may no longer be the only one.
        age_s = self._now() - self._claimed_at
        if self._claim not in self._client.list(f"{self.location}/{_CLAIM_PREFIX}") or (
            age_s >= _CLAIM_LIFE_S
        ):
            raise ClickparityError(
                f"a claim on {self.location} must still be held when a version gets its number",
                f"one {age_s:.0f} s old (they live {_CLAIM_LIFE_S:.0f} s)",
                "Publish again, from a machine nearer to the bucket.",
            )

    def children(self) -> list[str]:
        """See `VersionStorage`."""
        start = len(self.location) + 1
        found = self._client.list(f"{self.location}/")
        return sorted({address[start:].split("/", 1)[0] for address in found})

    def file_sizes(self, child: str) -> dict[str, int]:
        """See `VersionStorage`."""
        prefix = self._address(child)
        found = self._client.list(prefix)
        if not found:
            raise FileNotFoundError(prefix)
        return {address[len(prefix) :]: size for address, size in found.items()}

    def read(self, child: str, path: str) -> bytes:
        """See `VersionStorage`."""
        return self._read(self._address(child, path))

    def _read(self, address: str) -> bytes:
        if address not in self._client.list(address):
            raise FileNotFoundError(address)
        with self._client.open(address) as stream:
            return stream.read()

    def _write(self, address: str, content: bytes) -> None:
        with self._client.create(address) as out:
            out.write(content)

    def stage(self, source: Path, overrides: Mapping[str, bytes]) -> str:
        """Uploads a local export under a staging prefix."""
        staged = f"{STAGING_PREFIX}{uuid.uuid4().hex[:12]}"
        for path in sorted(file_sizes(source)):
            if path in overrides:
                self._write(self._address(staged, path), overrides[path])
                continue
            with (
                open(source / path, "rb") as stream,
                self._client.create(self._address(staged, path)) as out,
            ):
                _copy_stream(stream, out)
        return staged

    @contextmanager
    def local_copy(self, child: str) -> Iterator[Path]:
        """Downloads the child, so that what is checked is what the store holds."""
        with tempfile.TemporaryDirectory(prefix="clickparity-version-") as scratch:
            for path in self.file_sizes(child):
                target = Path(scratch, path)
                target.parent.mkdir(parents=True, exist_ok=True)
                with (
                    self._client.open(self._address(child, path)) as stream,
                    open(target, "wb") as out,
                ):
                    _copy_stream(stream, out)
            yield Path(scratch)

    def promote(self, staged: str, number: int) -> None:
        """Copies inside the store, `saved_model.pb` last; see the module's text."""
        self._require_claim()
        target = str(number)
        if self._client.list(self._address(target)):
            raise ClickparityError(
                "a version's number must be free",
                self._address(target),
                "Publish again: it takes the next one.",
            )
        sizes = self.file_sizes(staged)
        others = sorted(set(sizes) - {_GRAPH_FILE})
        self._copy_within(staged, target, others)
        arrived = self.file_sizes(target) if others else {}
        if arrived != {path: sizes[path] for path in others}:
            self.remove(target)
            raise ClickparityError(
                "every object must arrive whole", f"other sizes in {target}", "Publish again."
            )
        self._copy_within(staged, target, [_GRAPH_FILE])
        self.remove(staged)

    def _copy_within(self, child: str, target: str, paths: Sequence[str]) -> None:
        self._client.copy(
            [self._address(child, path) for path in paths],
            [self._address(target, path) for path in paths],
        )

    def remove(self, child: str) -> None:
        """Deletes `saved_model.pb` first: a version without it is refused, whereas one without
        its variables would load and fail every request.
        """
        graph = self._address(child, _GRAPH_FILE)
        self._client.delete([graph])
        self._client.delete(sorted(self._client.list(self._address(child))))

    def remove_leftovers(self) -> None:
        """With the claim held, every staging prefix is a dead publisher's."""
        for child in self.children():
            if child.startswith(STAGING_PREFIX):
                self.remove(child)

    def remove_broken_versions(self) -> None:
        """Deletes integer prefixes without `saved_model.pb`: killed in `promote` or `remove`."""
        for child in self.children():
            if child.isdecimal() and _GRAPH_FILE not in self.file_sizes(child):
                self.remove(child)


def _copy_stream(stream: BinaryIO, out: BinaryIO) -> None:
    while chunk := stream.read(_CHUNK_BYTES):
        out.write(chunk)
