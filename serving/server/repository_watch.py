"""Watches MODELS_DIR and keeps the latest version of each model loaded.

Layout: MODELS_DIR/NAME/<integer>/saved_model.pb. Every NAME is a model; every child whose name
parses as an integer is a version, anything else (`.tmp-5`) is not there yet. The policy is TF
Serving's default: the greatest number serves; the old version answers until the new one is loaded
and its warm-up requests are replayed; a version that fails to load changes nothing; when the last
version is deleted, the model is unloaded.
"""

from __future__ import annotations

import contextlib
import logging
import posixpath
import threading
import time
from collections.abc import Iterator, Mapping

from serving.server.metrics import ServerMetrics
from serving.server.servable import Servable
from serving.server.status import not_found
from serving.server.versions import State, VersionState, list_models, list_versions, status_of
from serving.server.warmup_replay import replay_warmup

__all__ = ["WatchedModels"]

logger = logging.getLogger(__name__)


class WatchedModels:
    """The loaded models of a directory; polled in a thread of its own.

    Args:
        models_dir: local path or gs://.
        metrics: where versions and failures are counted.
        name: serve this model only; None serves every one in the directory.
        poll_interval_s: how often the directory is listed.
        max_load_retries: attempts after a version's first failed one; then it is left alone.
        load_retry_interval_s: between these attempts.
    """

    def __init__(
        self,
        models_dir: str,
        metrics: ServerMetrics,
        *,
        name: str | None = None,
        poll_interval_s: float = 1.0,
        max_load_retries: int = 5,
        load_retry_interval_s: float = 60.0,
    ) -> None:
        self._models_dir, self._only, self._metrics = str(models_dir), name, metrics
        self._poll_interval_s = poll_interval_s
        self._max_load_retries = max_load_retries
        self._load_retry_interval_s = load_retry_interval_s
        self._changed = threading.Condition()  # guards the two dicts below
        self._live: dict[str, Servable] = {}
        self._states: dict[str, dict[int, VersionState]] = {}
        self._poll_lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-repository", daemon=True)

    def start(self) -> None:
        """Loads what is there, then watches."""
        self.poll()
        self._thread.start()

    def stop(self) -> None:
        """Stops watching and unloads everything; requests that run still end normally."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._poll_lock:
            for name in list(self._live):
                self._unload(name, "the server stops")

    # -- for requests ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def servable(self, name: str, version: int | None = None) -> Iterator[Servable]:
        """The live version of a model, kept loaded while the block runs.

        Raises:
            ServingError: NOT_FOUND: no such model, or not this version of it.
        """
        with self._changed:
            servable = self._live.get(name)
            if servable is None or version not in (None, servable.version):
                asked = f"Latest({name})" if version is None else f"Specific({name}, {version})"
                raise not_found(f"Servable not found for request: {asked}")
            servable.acquire()  # under the lock: what is live has not been retired yet
        try:
            yield servable
        finally:
            servable.release()

    def states(self, name: str) -> Mapping[int, VersionState]:
        """Every version of a model ever seen, the latest first; empty for no such model."""
        with self._changed:
            return dict(sorted(self._states.get(name, {}).items(), reverse=True))

    def live_versions(self) -> dict[str, int]:
        """Model name -> the version that answers."""
        with self._changed:
            return {name: servable.version for name, servable in self._live.items()}

    def is_known(self, name: str) -> bool:
        """Whether a version of this model was ever seen."""
        with self._changed:
            return name in self._states

    def is_ready(self) -> bool:
        """Whether some model answers, and none is waiting or failing without one that answers."""
        with self._changed:
            return bool(self._live) and not any(
                state.error_code or state.state is not State.END
                for name, states in self._states.items()
                if name not in self._live
                for state in states.values()
            )

    def wait_until_available(
        self, name: str, version: int | None = None, timeout_s: float = 60.0
    ) -> int:
        """Blocks until `version` (None: any) of a model answers; returns the version.

        Raises:
            TimeoutError: it does not in time; the message has the failure if there is one.
        """

        def live() -> int | None:
            servable = self._live.get(name)
            if servable is None or version not in (None, servable.version):
                return None
            return servable.version

        with self._changed:
            self._changed.wait_for(lambda: live() is not None, timeout_s)
            found = live()
            if found is None:
                raise TimeoutError(
                    f"model {name!r} version {version or 'any'} is not available after "
                    f"{timeout_s:g} s; states: {self._states.get(name, {})}"
                )
            return found

    # -- the watcher -------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_interval_s):
            try:
                self.poll()
            except Exception:  # a passing fault of the file system must not end the watch
                logger.exception("could not poll %s", self._models_dir)

    def poll(self) -> None:
        """Compares the directory with what is loaded, and loads and unloads accordingly."""
        with self._poll_lock:
            names = [self._only] if self._only is not None else list_models(self._models_dir)
            for name in {*names, *self._live, *self._states}:
                versions = list_versions(posixpath.join(self._models_dir, name))
                self._forget_failures(name, versions)
                if not versions:
                    self._unload(name, "no version left")
                elif not self._stopping.is_set():
                    self._aspire(name, max(versions), versions[max(versions)])

    def _aspire(self, name: str, version: int, path: str) -> None:
        live = self._live.get(name)
        if live is not None and live.version == version:
            return
        before = self._states.get(name, {}).get(version)
        failures = before.num_failures if before is not None else 0
        if (
            before is not None
            and before.num_failures
            and not before.may_try_again(time.monotonic())
        ):
            return
        self._set_state(name, version, VersionState(State.LOADING))
        started = time.monotonic()
        try:
            servable = Servable(name, version, path)
            try:
                num_warmup = replay_warmup(servable)
            except BaseException:
                servable.retire()
                raise
        except Exception as error:  # whatever a broken directory raises: the old version stays
            self._report_failure(name, version, path, error, failures + 1)
            return
        with self._changed:
            self._live[name] = servable
            self._states[name][version] = VersionState(State.AVAILABLE)
            self._changed.notify_all()
        self._metrics.set_live_version(name, version)
        logger.info(
            "loaded model %s version %d from %s in %.2f s (%d warm-up requests)",
            *(name, version, path, time.monotonic() - started, num_warmup),
        )
        if live is not None:
            live.retire()
            self._set_state(name, live.version, VersionState(State.END))
            logger.info("unloaded model %s version %d", name, live.version)

    def _report_failure(
        self, name: str, version: int, path: str, error: Exception, failures: int
    ) -> None:
        code, message = status_of(error)
        gave_up = failures > self._max_load_retries
        live = self._live.get(name)
        logger.warning(
            "model %s version %d does not load from %s (attempt %d of %d): %s; %s",
            *(name, version, path, failures, self._max_load_retries + 1, message),
            "nothing serves" if live is None else f"version {live.version} keeps serving",
        )
        self._metrics.count_load_failure(name)
        self._set_state(
            name,
            version,
            VersionState(
                State.END if gave_up else State.LOADING,
                code,
                message,
                failures,
                time.monotonic() + self._load_retry_interval_s,
            ),
        )

    def _forget_failures(self, name: str, versions: Mapping[int, str]) -> None:
        """A version that left the directory may come back whole under the same number."""
        with self._changed:
            states = self._states.get(name, {})
            for version, state in list(states.items()):
                if state.num_failures and version not in versions:
                    states[version] = VersionState(State.END)

    def _unload(self, name: str, reason: str) -> None:
        with self._changed:
            servable = self._live.pop(name, None)
        if servable is not None:
            servable.retire()
            self._set_state(name, servable.version, VersionState(State.END))
            self._metrics.set_live_version(name, None)
            logger.info("unloaded model %s version %d: %s", name, servable.version, reason)

    def _set_state(self, name: str, version: int, state: VersionState) -> None:
        with self._changed:
            self._states.setdefault(name, {})[version] = state
            self._changed.notify_all()
