"""Counters for Prometheus, and OpenTelemetry's spans.

Neither holds text of a request: paths are those of routes, clients are names of tokens or
addresses, models are served names.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from palate.extras import install_command
from palate.serve.engine import Engine
from palate.serve.tokenize import Read
from palate.types import PalateError

LOG = logging.getLogger("palate.serve")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
ENGINE_COUNTERS = {
    "batches": "Micro-batches computed",
    "asked_tokens": "Tokens of conversations that were scored",
    "computed_tokens": "Tokens computed, each shared prompt once",
    "prompts": "Prompts looked for among those that are kept",
    "prompts_found": "Prompts of which a beginning was kept",
    "kept_tokens": "Tokens not computed because they were kept",
    "busy_seconds": "Seconds spent computing",
    "refused": "Asks refused because too much waited",
    "late": "Asks whose deadline passed",
    "cancelled": "Asks whose client went away",
    "failed": "Asks that the model could not compute",
}
ENGINE_GAUGES = {
    "waiting_tokens": "Tokens that no micro-batch has taken yet",
    "waiting_asks": "Asks accepted and not answered yet",
    "kept_bytes": "Bytes of prompts that are kept",
}


class Telemetry:
    """The metrics of one server, in a registry of their own."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.registry = CollectorRegistry()
        self.under_way = Gauge(
            "palate_requests_under_way", "Requests not answered yet", registry=self.registry
        )

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=self.registry)

        self._requests = counter("palate_requests", "Requests answered", "path", "status")
        self._seconds = Histogram(
            "palate_request_seconds",
            "Time from a request's first byte to its answer",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._conversations = counter("palate_conversations", "Conversations read", "model")
        self._tokens = counter("palate_tokens", "Tokens read", "model")
        self._truncated = counter(
            "palate_truncated_conversations", "Conversations whose prompt was cut", "model"
        )
        self._untemplated = counter(
            "palate_untemplated_texts", "Texts without a turn of the model's template", "model"
        )
        self._unframed = counter(
            "palate_unframed_ids",
            "Token ids that begin or end otherwise than the template",
            "model",
        )

    def watch(self, engines: Iterable[Engine]) -> None:
        """Add the counters of engines."""
        self.registry.register(_Engines(tuple(engines)))

    def count(self, model: str, reads: Sequence[Read]) -> None:
        """Conversations that were read for a model."""
        self._conversations.labels(model).inc(len(reads))
        self._tokens.labels(model).inc(sum(len(read.ids) for read in reads))
        self._truncated.labels(model).inc(sum(read.truncated for read in reads))
        self._untemplated.labels(model).inc(sum(read.untemplated for read in reads))
        self._unframed.labels(model).inc(sum(read.unframed for read in reads))

    def answered(self, path: str, status: int, seconds: float) -> None:
        """A request that was answered."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def page(self) -> bytes:
        """The metrics as Prometheus reads them."""
        return generate_latest(self.registry)


def start_tracing() -> None:
    """Send spans to where OTEL_EXPORTER_OTLP_ENDPOINT says.

    Raises:
        PalateError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise PalateError(
            f"--trace needs OpenTelemetry ({error.name}); run: {install_command('otel')}"
        ) from None
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "palate"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


class _Engines:
    """Reads the engines' own counters whenever Prometheus asks."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines

    def collect(self) -> Iterable[Metric]:
        for name, text in ENGINE_COUNTERS.items():
            counter = CounterMetricFamily(f"palate_engine_{name}", text, labels=["model"])
            for engine in self._engines:
                counter.add_metric([engine.name], getattr(engine.stats, name))
            yield counter
        for name, text in ENGINE_GAUGES.items():
            gauge = GaugeMetricFamily(f"palate_engine_{name}", text, labels=["model"])
            for engine in self._engines:
                gauge.add_metric([engine.name], getattr(engine, name))
            yield gauge
