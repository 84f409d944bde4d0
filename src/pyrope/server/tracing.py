"""Tracing, where the settings switch it on."""

from __future__ import annotations

import secrets
from random import Random

from pyrope.clock import Clock
from pyrope.config import TracingSettings
from pyrope.engine.executor import Executor
from pyrope.errors import PyropeError
from pyrope.tracing.tracer import Exporter

# For one message to the collector, with all attempts.
_EXPORT_TIMEOUT_S = 2.0


class Tracing:
    """A tracer, and the thread in which it sends. `stop` leaves nothing behind.

    Args:
        exporter: sends spans; None: to the endpoint of the settings.

    Attributes:
        tracer: of the server's commands.

    Raises:
        PyropeError: the packages that it takes are not installed.
    """

    def __init__(
        self, settings: TracingSettings, clock: Clock, exporter: Exporter | None = None
    ) -> None:
        try:
            from pyrope.tracing.opentelemetry import (  # noqa: PLC0415 - takes 0.2 s and 20 MB
                OpenTelemetryTracer,
                otlp_exporter,
            )
        except ImportError as error:
            raise PyropeError(
                f"tracing.share is set, and '{error.name}' is not installed: "
                "pip install 'pyrope-server[tracing]'"
            ) from error
        self._executor = Executor(1, name="pyrope-tracing")
        self.tracer = OpenTelemetryTracer(
            exporter or otlp_exporter(settings.endpoint, timeout_s=_EXPORT_TIMEOUT_S),
            clock,
            service_name=settings.service_name,
            share=settings.share,
            random=Random(secrets.randbits(64)),  # noqa: S311 - no secret
            run=self._executor.run,
        )

    def start(self) -> None:
        """Begin to send, inside the running loop."""
        self._executor.start()
        self.tracer.start()

    async def stop(self) -> None:
        """Send what there is."""
        await self.tracer.stop()
        await self._executor.stop()
