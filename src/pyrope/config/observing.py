"""Settings of what tells others about the server: metrics and traces."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import field_validator

from pyrope.config.fields import Group, setting

MetricsAccess = Literal["admin", "local", "any"]


class MetricsSettings(Group):
    """Metrics for Prometheus, at `/metrics` of the control plane."""

    access: MetricsAccess = setting(
        "admin",
        "Who may read them: admin (who signs in as the administrator), local (also clients on "
        "this host, without signing in), any (everybody who reaches http_port).",
    )
    tenant_labels: int = setting(
        0,
        "Tenants that have series of their own, under their names; the rest are added up as "
        "tenant=other. 0: none, and there are no such series.",
        ge=0,
        le=1000,
    )
    index_labels: int = setting(
        0,
        "Indexes that have series of their own, under their names; the rest are added up as "
        "index=other. 0: none, and there are no such series.",
        ge=0,
        le=1000,
    )


class TracingSettings(Group):
    """Traces of commands, sent to a collector of OpenTelemetry.

    They take what `pip install pyrope-server[tracing]` brings.
    """

    share: float = setting(
        0,
        "Share of the commands that are traced, drawn at random; 0: none, and nothing of it is "
        "loaded.",
        ge=0,
        le=1,
    )
    endpoint: str = setting(
        "http://127.0.0.1:4318/v1/traces",
        "Where traces are sent: OTLP over HTTP, protobuf. Headers that it wants are taken from "
        "the environment variable OTEL_EXPORTER_OTLP_HEADERS.",
    )
    service_name: str = setting(
        "pyrope", "By which name the server is known there.", pattern=r"^\S(.{0,126}\S)?$"
    )

    @field_validator("endpoint")
    @classmethod
    def _is_http(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"'{value}' is no URL: http:// or https:// and a host are expected, and the path "
                "that the collector takes traces at"
            )
        return value
