"""Spans on their way to a collector."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from pyrope.testing.clock import ManualClock
from pyrope.tracing import opentelemetry
from pyrope.tracing.opentelemetry import OpenTelemetryTracer


def run_at_once(function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
    future = asyncio.get_running_loop().create_future()
    try:
        future.set_result(function(*args))
    except Exception as error:  # noqa: BLE001 - it goes to whoever waits
        future.set_exception(error)
    return future


def tracer(exporter: Any, clock: ManualClock, share: float = 1) -> OpenTelemetryTracer:
    return OpenTelemetryTracer(
        exporter, clock, service_name="s", share=share, random=Random(3), run=run_at_once
    )


async def test_times_of_spans_are_wall_times_by_the_monotonic_clock() -> None:
    clock, exporter = ManualClock(wall=1_000_000.0), InMemorySpanExporter()
    traced = tracer(exporter, clock)
    traced.start()
    span = traced.begin("PING", clock.monotonic(), {})
    assert span is not None
    span.child("part", 0.25, 0.5, {"a": 1})
    span.end(1.0)
    await traced.stop()
    part, whole = exporter.get_finished_spans()
    assert (whole.start_time, whole.end_time) == (1_000_000_000_000_000, 1_000_001_000_000_000)
    assert (part.start_time, part.end_time) == (1_000_000_250_000_000, 1_000_000_500_000_000)
    assert (traced.exported_total, traced.dropped_total) == (2, 0)


async def test_more_spans_than_may_wait_drive_the_oldest_out() -> None:
    clock, exporter = ManualClock(), InMemorySpanExporter()
    traced = tracer(exporter, clock)
    traced.start()
    most = opentelemetry._WAITING_MAX
    for number in range(most + 10):
        span = traced.begin(str(number), 0.0, {})
        assert span is not None
        span.end(0.0)
    await traced.stop()
    names = [span.name for span in exporter.get_finished_spans()]
    assert names == [str(number) for number in range(10, most + 10)]
    assert (traced.exported_total, traced.dropped_total) == (most, 10)


async def test_an_exporter_that_fails_stops_nothing_and_what_is_lost_is_counted() -> None:
    class Failing(InMemorySpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            raise OSError("no")

    traced = tracer(Failing(), ManualClock())
    traced.start()
    for _ in range(3):
        span = traced.begin("PING", 0.0, {})
        assert span is not None
        span.end(0.0, error="ERR")
    await traced.stop()
    await traced.stop()
    assert (traced.exported_total, traced.dropped_total) == (0, 3)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_write_of_a_command_that_is_not_traced_is_nobodys() -> None:
    clock, exporter = ManualClock(), InMemorySpanExporter()
    traced = tracer(exporter, clock, share=0)
    traced.start()
    write = asyncio.get_running_loop().create_future()
    assert traced.begin("VECTOR.ADD", 0.0, {}) is None
    traced.follow(write)
    traced.committed([write], 0.0, 1.0)
    write.set_result(1)
    await traced.stop()
    assert exporter.get_finished_spans() == ()
