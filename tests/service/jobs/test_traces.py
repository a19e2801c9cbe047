"""Traces: one for each job, from admission to storage, inside the client's trace and without the prompt."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from allaprima.service.app import Service
from allaprima.service.jobs import traces

BODY: dict[str, Any] = {"model": "flux/schnell", "prompt": "a rhinoceros", "size": "64x64", "steps": 2}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The exported spans. The tracer is replaced, because the provider of a process can be set only once."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(traces, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def named(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


async def test_job_is_one_trace_with_its_phases(client: httpx2.AsyncClient, spans: InMemorySpanExporter) -> None:
    answer = await client.post("/v1/images/generations", json=BODY)
    found = named(spans)
    assert set(found) == {"queue", "text", "step 1", "step 2", "decode", "safety", "encode", "store", "job"}
    whole = found.pop("job")
    assert whole.attributes is not None
    assert whole.attributes["allaprima.job.id"] == answer.headers["x-inference-id"]
    assert whole.attributes["gen_ai.request.model"] == "flux/schnell"
    assert {span.parent and span.parent.span_id for span in found.values()} == {whole.context.span_id}
    length = {name: (span.end_time or 0) - (span.start_time or 0) for name, span in found.items()}
    assert length["decode"] == pytest.approx(0.5e9, rel=1e-3)
    assert "rhinoceros" not in str([span.to_json() for span in spans.get_finished_spans()])


async def test_job_joins_trace_of_client(client: httpx2.AsyncClient, spans: InMemorySpanExporter) -> None:
    trace_id, span_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    await client.post("/v1/images/generations", json=BODY, headers={"traceparent": f"00-{trace_id}-{span_id}-01"})
    whole = named(spans)["job"]
    assert f"{whole.context.trace_id:032x}" == trace_id
    assert whole.parent is not None
    assert f"{whole.parent.span_id:016x}" == span_id


@pytest.mark.parametrize("header", ["", "nonsense", "00-0-0-00", "\u00e9", "x" * 5000])
async def test_invalid_traceparent_is_ignored(
    client: httpx2.AsyncClient, spans: InMemorySpanExporter, header: str
) -> None:
    answer = await client.post("/v1/images/generations", json=BODY, headers=[("traceparent", header.encode("utf-8"))])
    assert answer.status_code == 200
    assert named(spans)["job"].parent is None


async def test_generation_needs_no_trace_exporter(service: Service, client: httpx2.AsyncClient) -> None:
    assert (await client.post("/v1/images/generations", json=BODY)).status_code == 200
