"""Whether there is a collector of spans: the variables of OpenTelemetry, `OTEL_*`, say it.

What makes spans is imported only if there is one.
"""

from collections.abc import Mapping

import structlog

from rpc import distribution
from rpc.tracing import Tracer

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_OTLP = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}

_log = structlog.stdlib.get_logger(__name__)


def tracer(environment: Mapping[str, str], service: str) -> Tracer | None:
    """Sets up spans as the variables of OpenTelemetry, `OTEL_*`, say.

    Args:
        environment: the variables that say whether there is a collector; OpenTelemetry itself
            reads the others in those of the process.
        service: name of the service where they do not name it.

    Returns:
        None where no collector is named, or OpenTelemetry is not installed, which the log says.
    """
    exporter = _exporter(environment)
    if exporter is None:
        return None
    try:
        from rpc.open_telemetry import SpanTracer

        return SpanTracer(exporter, service)
    except (ImportError, LookupError) as error:
        remedy = f"install {distribution.NAME}[otel], or set OTEL_TRACES_EXPORTER=none"
        _log.warning("no_tracing", reason=str(error), remedy=remedy)
        return None


def _exporter(environment: Mapping[str, str]) -> str | None:
    """Returns the name that the exporter is installed under; None where spans go nowhere."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    has_endpoint = any(environment.get(name) for name in _ENDPOINTS)
    kind = environment.get("OTEL_TRACES_EXPORTER") or ("otlp" if has_endpoint else "none")
    if kind == "none":
        return None
    if kind != "otlp":
        return kind
    protocol = next((value for name in _PROTOCOLS if (value := environment.get(name))), "grpc")
    return _OTLP.get(protocol, protocol)
