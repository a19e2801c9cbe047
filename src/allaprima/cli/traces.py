"""Where traces go: to an OpenTelemetry collector, if the operator names one."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

from allaprima import __version__
from allaprima.errors import SettingsError


@contextmanager
def exported_traces(endpoint: str | None) -> Iterator[None]:
    """Send spans over OTLP/HTTP while the context lasts. Raises `SettingsError` where the exporter is not installed."""
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
            "server.traces_endpoint needs the exporter; install it with `pip install 'allaprima[traces]'`"
        ) from exc
    resource = Resource.create({"service.name": "allaprima", "service.version": __version__})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
