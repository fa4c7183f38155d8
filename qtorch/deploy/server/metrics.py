"""The server's metrics in Prometheus' text format."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """Counts of requests, their time, and the state of the queue; Ray's own metrics stand beside them.

    Args:
        waiting: how many requests wait.
        in_flight: how many are not answered yet.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], int], in_flight: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        labels = ("protocol", "endpoint", "model", "version", "code")
        self._requests = Counter("qtorch_requests", "Requests that were answered", labels, registry=self.registry)
        self._seconds = Histogram(
            "qtorch_request_seconds",
            "Time until the answer",
            ("protocol", "endpoint", "model"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch_requests = Histogram(
            "qtorch_batch_requests", "Requests in a batch", ("model",), buckets=_SIZES, registry=self.registry
        )
        self._batch_windows = Histogram(
            "qtorch_batch_windows", "Windows in a batch", ("model",), buckets=_SIZES, registry=self.registry
        )
        self._retries = Counter("qtorch_worker_retries", "Calls that another worker repeated", registry=self.registry)
        self._ready = Gauge("qtorch_model_ready", "Versions that answer", ("model", "version"), registry=self.registry)
        Gauge("qtorch_requests_waiting", "Requests that wait", registry=self.registry).set_function(waiting)
        Gauge("qtorch_requests_in_flight", "Requests not answered yet", registry=self.registry).set_function(in_flight)

    def answered(self, protocol: str, endpoint: str, model: str, version: str, code: str, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(protocol, endpoint, model, version, code).inc()
        self._seconds.labels(protocol, endpoint, model).observe(seconds)

    def batch(self, model: str, requests: int, windows: int) -> None:
        """A batch left for a worker."""
        self._batch_requests.labels(model).observe(requests)
        self._batch_windows.labels(model).observe(windows)

    def retried(self) -> None:
        """A worker was lost, and another asked."""
        self._retries.inc()

    def ready(self, versions: Iterable[tuple[str, str]]) -> None:
        """The versions that answer now."""
        self._ready.clear()
        for model, version in versions:
            self._ready.labels(model, version).set(1)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self.registry)
