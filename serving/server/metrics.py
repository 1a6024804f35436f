"""The server's metrics, under TF Serving's names, for Prometheus to scrape."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import prometheus_client
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

__all__ = ["METRICS_PATH", "ServerMetrics"]

METRICS_PATH = "/monitoring/prometheus/metrics"
UNKNOWN_MODEL = "unknown"

# servables/tensorflow/util.cc: 33 buckets from 10 microseconds, each 1.8 times the one before.
_LATENCY_BUCKETS_US = tuple(10 * 1.8**index for index in range(33))


class _RequestCount(Collector):
    """`:tensorflow:serving:request_count`, whose name prometheus_client's Counter would change.

    That class appends `_total`, and dashboards made for TF Serving would find nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, model_name: str, status: str) -> None:
        with self._lock:
            self._counts[model_name, status] += 1

    def collect(self) -> Iterator[Metric]:
        metric = Metric(
            ":tensorflow:serving:request_count", "The total number of requests.", "unknown"
        )
        with self._lock:
            for (model_name, status), count in sorted(self._counts.items()):
                labels = {"model_name": model_name, "status": status}
                metric.add_sample(metric.name, labels, count)
        yield metric


class ServerMetrics:
    """Counts and latencies of one server (each has its own registry, so tests may run several)."""

    def __init__(self) -> None:
        self.registry = prometheus_client.CollectorRegistry()
        self._request_count = _RequestCount()
        self.registry.register(self._request_count)
        self._request_latency = prometheus_client.Histogram(
            ":tensorflow:serving:request_latency",
            "Distribution of wall time (in microseconds) for Tensorflow Serving request.",
            ("model_name", "API", "entrypoint"),
            buckets=_LATENCY_BUCKETS_US,
            registry=self.registry,
        )
        self._live_version = prometheus_client.Gauge(
            "clickparity_model_version",
            "The version that serves; -1 when none does.",
            ("model_name",),
            registry=self.registry,
        )
        self._load_failures = prometheus_client.Counter(
            "clickparity_model_load_failures",
            "Failed attempts to load a version or to replay its warm-up requests.",
            ("model_name",),
            registry=self.registry,
        )

    def count_request(self, model_name: str, status: str) -> None:
        """One finished request; `model_name` must be a known one: callers may send anything."""
        self._request_count.add(model_name, status)

    def observe_latency(
        self, model_name: str, api: str, entrypoint: str, latency_us: float
    ) -> None:
        """One successful request's wall time in microseconds."""
        self._request_latency.labels(model_name, api, entrypoint).observe(latency_us)

    def set_live_version(self, model_name: str, version: int | None) -> None:
        """Which version answers now; None for none."""
        self._live_version.labels(model_name).set(-1 if version is None else version)

    def count_load_failure(self, model_name: str) -> None:
        """One failed attempt."""
        self._load_failures.labels(model_name).inc()

    def page(self) -> bytes:
        """The text page that Prometheus reads."""
        return prometheus_client.generate_latest(self.registry)
