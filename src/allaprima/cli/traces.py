"""Export of traces to an OpenTelemetry collector."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

from allaprima import __version__
from allaprima.errors import SettingsError


@contextmanager
def exported_traces(endpoint: str | None) -> Iterator[None]:
    """Export spans by OTLP over HTTP until the context exits; None: no export.

    Raises `SettingsError` if the exporter is not installed.
    """
    if endpoint is None:
        yield
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as exc:
        raise SettingsError(
            "server.traces_endpoint requires the exporter; install it with `pip install 'allaprima[traces]'`"
        ) from exc
    resource = Resource.create({"service.name": "allaprima", "service.version": __version__})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
