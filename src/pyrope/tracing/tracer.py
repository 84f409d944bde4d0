"""What is told of a command that is traced, and to whom."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

Attributes = Mapping[str, str | int | float]

CURRENT: ContextVar[Span | None] = ContextVar("pyrope_span", default=None)
"""The span of the command at hand, if it is traced: in tasks begun by it, too."""


class Span(Protocol):
    """A command that is traced. Times are of the monotonic clock, in seconds."""

    def child(self, name: str, began_at: float, ended_at: float, attributes: Attributes) -> None:
        """Tell of a part of it, which is over."""
        ...

    def end(
        self, ended_at: float, attributes: Attributes | None = None, error: str | None = None
    ) -> None:
        """It is over.

        Args:
            error: the prefix of what it was answered; None: it was no error.
        """
        ...


class WriteTracer(Protocol):
    """What writes are told to."""

    def follow(self, write: asyncio.Future[Any]) -> None:
        """The current command, if it is traced, is to be told of this write's commit."""
        ...

    def committed(
        self, writes: Iterable[asyncio.Future[Any]], began_at: float, ended_at: float
    ) -> None:
        """These writes have been made durable, together."""
        ...


class Exporter(Protocol):
    """What OpenTelemetry calls a SpanExporter: sends spans that have ended."""

    def export(self, spans: Any) -> Any: ...

    def shutdown(self) -> None: ...


class Tracer(WriteTracer, Protocol):
    """Of a server. For the event loop."""

    def begin(self, name: str, began_at: float, attributes: Attributes) -> Span | None:
        """A command begins; None: it is not one of those that are traced."""
        ...
