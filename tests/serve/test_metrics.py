"""Counters that Prometheus can read, and spans without text."""

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from palate.serve.settings import Settings
from server import live, server_of

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_what_was_asked_and_computed_is_counted(tiny_folder):
    with live(server_of({"tiny": str(tiny_folder)})) as found:
        found.ok("/v1/reward", {"prompt": "x", "responses": ["y", "z"]})
        found.post("/classify", {})
        page = found.http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
    }
    assert samples["palate_requests_total", "/v1/reward", "200"] == 1
    assert samples["palate_requests_total", "/classify", "422"] == 1
    assert samples["palate_conversations_total", "tiny"] == 2
    assert samples["palate_request_seconds_count", "/v1/reward"] == 1
    assert samples["palate_engine_waiting_tokens", "tiny"] == 0
    # Two conversations of one prompt, and the one that is tried before the server is ready.
    asked = samples["palate_engine_asked_tokens_total", "tiny"]
    assert asked == samples["palate_tokens_total", "tiny"] + 1
    assert 0 < samples["palate_engine_computed_tokens_total", "tiny"] < asked
    assert samples["palate_requests_under_way",] == 1, "the one that asks for them"


def test_spans_follow_the_clients_trace_and_hold_no_text(tiny_folder):
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(provider)
    with live(server_of({"tiny": str(tiny_folder)}, Settings(trace=True))) as found:
        found.http.get("/health")
        found.ok("/get_reward", {"query": "a private text"}, traceparent=PARENT)
    (span,) = spans.get_finished_spans()
    assert span.name == "POST /get_reward"
    assert f"{span.context.trace_id:032x}" == PARENT.split("-")[1]
    assert "private" not in span.to_json()
