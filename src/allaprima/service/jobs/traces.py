"""Writes OpenTelemetry spans of finished jobs, from acceptance to storage, if an exporter is configured.

The spans are created from the measured times after the job's end, so that no other code depends on tracing. Attributes
follow the GenAI conventions where they exist (open-telemetry/semantic-conventions-genai).
"""

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from allaprima.domain.generation import Timings
from allaprima.domain.jobs import Job

_tracer = trace.get_tracer("allaprima")
_propagator = TraceContextTextMapPropagator()


def trace_job(job: Job, timings: Timings, generated_at: float, stored_at: float) -> None:
    """Write the spans of a succeeded job. generated_at, stored_at: unix seconds."""
    parent = _propagator.extract({"traceparent": job.options.traceparent}) if job.options.traceparent else None
    attributes: dict[str, str | int] = {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.output.type": "image",
        "gen_ai.request.model": job.options.model,
        "gen_ai.response.model": job.request.model,
        "allaprima.job.id": job.id,
        "allaprima.width": job.request.width,
        "allaprima.height": job.request.height,
        "allaprima.steps": job.request.steps,
        "allaprima.images": job.request.count,
    }
    whole = _tracer.start_span("job", parent, attributes=attributes, start_time=_nanoseconds(job.created_at))
    if not whole.is_recording():
        return
    inside = trace.set_span_in_context(whole)
    began_at = generated_at - timings.inference - timings.encode
    phases = [("queue", job.created_at, began_at)]
    at = began_at
    steps = [(f"step {number}", seconds) for number, seconds in enumerate(timings.steps, 1)]
    ends = [("decode", timings.decode), ("safety", timings.safety), ("encode", timings.encode)]
    for name, seconds in [("text", timings.text), *steps, *ends]:
        phases.append((name, at, at + seconds))
        at += seconds
    phases.append(("store", generated_at, stored_at))
    for name, start, end in phases:
        span = _tracer.start_span(name, inside, start_time=_nanoseconds(start))
        span.end(end_time=_nanoseconds(max(start, end)))
    whole.end(end_time=_nanoseconds(stored_at))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
