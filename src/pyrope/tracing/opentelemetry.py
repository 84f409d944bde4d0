"""Traces as OpenTelemetry has them, sent by OTLP.

The library's own processor of batches has a thread, which it starts again in each forked child;
graphs are saved by such children. So finished spans are kept here, bounded, and sent once a second
by a task of the loop, in a thread that is lent to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span as OpenSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

from pyrope import __version__
from pyrope.clock import Clock
from pyrope.log import get_logger
from pyrope.tracing.tracer import CURRENT, Attributes, Exporter, Span

_log = get_logger(__name__)

_INTERVAL_S = 1.0
# Spans that wait to be sent, at some 2 KB each; and those of one message.
_WAITING_MAX, _AT_ONCE = 16_384, 512
# At the end, for what is left.
_STOP_TIMEOUT_S = 2.0

Run = Callable[..., asyncio.Future[Any]]
"""Calls a function with arguments in a thread."""


class OpenTelemetryTracer:
    """A `pyrope.tracing.tracer.Tracer`. `stop` leaves nothing behind.

    Args:
        exporter: sends spans; called in the thread of `run`.
        service_name: of the server.
        share: of commands that are traced, 0-1.
        random: draws them.

    Attributes:
        exported_total, dropped_total: spans that were sent, and that could not be.
    """

    def __init__(
        self,
        exporter: Exporter,
        clock: Clock,
        *,
        service_name: str,
        share: float,
        random: Random,
        run: Run,
    ) -> None:
        self.exported_total = 0
        self.dropped_total = 0
        self._exporter = exporter
        self._clock = clock
        self._share = share
        self._random = random.random
        self._run = run
        self._waiting: deque[ReadableSpan] = deque()
        self._writes: dict[asyncio.Future[Any], Span] = {}
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._is_failing = False
        resource = Resource({SERVICE_NAME: service_name, SERVICE_VERSION: __version__})
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(_Collect(self._ended))
        self._tracer = self._provider.get_tracer("pyrope", __version__)

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send, inside the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._send_all(), name="tracing")

    async def stop(self) -> None:
        """Send what is there, as far as a few seconds go. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        await asyncio.wait((task,), timeout=_STOP_TIMEOUT_S)
        if not task.done():
            _log.warning("traces are lost: their collector does not answer")
            task.cancel()
        # This has an attempt that is under way give up.
        self._exporter.shutdown()
        await asyncio.gather(task, return_exceptions=True)
        self.dropped_total += len(self._waiting)
        self._waiting.clear()

    async def _send_all(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _INTERVAL_S)
            # What comes later is not of a command any more.
            is_last = self._stopping.is_set()
            while self._waiting:
                some = min(_AT_ONCE, len(self._waiting))
                await self._send([self._waiting.popleft() for _ in range(some)])
            if is_last:
                return

    async def _send(self, spans: list[ReadableSpan]) -> None:
        sent = False
        try:
            sent = await self._run(self._exporter.export, spans) is SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001 - tracing must not stop the server
            _log.debug("traces cannot be sent", error=str(error))
        finally:
            if sent:
                self.exported_total += len(spans)
            else:
                self.dropped_total += len(spans)
        if sent is self._is_failing:
            self._is_failing = not sent
            tell = _log.info if sent else _log.warning
            tell("traces are sent again" if sent else "traces are lost: they cannot be sent")

    def _ended(self, span: ReadableSpan) -> None:
        if len(self._waiting) >= _WAITING_MAX:
            self._waiting.popleft()
            self.dropped_total += 1
        self._waiting.append(span)

    # -- commands ---------------------------------------------------------------------------------

    def begin(self, name: str, began_at: float, attributes: Attributes) -> Span | None:
        if self._random() >= self._share:
            return None
        # Spans have wall times; within one the monotonic clock goes.
        offset = self._clock.wall() - self._clock.monotonic()
        span = self._tracer.start_span(
            name,
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=_nanoseconds(began_at + offset),
        )
        return _Command(self._tracer, span, offset)

    def follow(self, write: asyncio.Future[Any]) -> None:
        span = CURRENT.get()
        if span is not None:
            self._writes[write] = span
            write.add_done_callback(self._forget)

    def _forget(self, write: asyncio.Future[Any]) -> None:
        self._writes.pop(write, None)

    def committed(
        self, writes: Iterable[asyncio.Future[Any]], began_at: float, ended_at: float
    ) -> None:
        for write in writes:
            span = self._writes.get(write)
            if span is not None:
                span.child("commit", began_at, ended_at, {})


def otlp_exporter(endpoint: str, timeout_s: float) -> Exporter:
    """Sends spans by OTLP over HTTP, in protobuf.

    Args:
        timeout_s: for one message, with all attempts.
    """
    return OTLPSpanExporter(endpoint=endpoint, timeout=timeout_s)


class _Command:
    """A `pyrope.tracing.tracer.Span`."""

    def __init__(self, tracer: Any, span: OpenSpan, offset: float) -> None:
        self._tracer = tracer
        self._span = span
        self._offset = offset
        self._within = set_span_in_context(span)

    def child(self, name: str, began_at: float, ended_at: float, attributes: Attributes) -> None:
        part = self._tracer.start_span(
            name,
            context=self._within,
            attributes=attributes,
            start_time=_nanoseconds(began_at + self._offset),
        )
        part.end(_nanoseconds(ended_at + self._offset))

    def end(
        self, ended_at: float, attributes: Attributes | None = None, error: str | None = None
    ) -> None:
        span = self._span
        if attributes:
            span.set_attributes(attributes)
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(_nanoseconds(ended_at + self._offset))


class _Collect(SpanProcessor):
    """Hands over what has ended."""

    def __init__(self, ended: Callable[[ReadableSpan], None]) -> None:
        self._ended_ = ended

    def on_end(self, span: ReadableSpan) -> None:
        self._ended_(span)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
