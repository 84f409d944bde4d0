"""Traces of a real server's commands: in an in-process collector, and by OTLP over HTTP."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from pyrope.clock import SystemClock
from pyrope.commands.table import build_table
from pyrope.errors import PyropeError
from pyrope.server.dispatch import Dispatcher
from pyrope.server.lifecycle import PyropeServer
from pyrope.testing.http_server import HttpReply, HttpRequest, HttpServer
from servers import encode, make_settings
from tenancy import blob

PARTS = ["cache", "queue", "engine"]


@asynccontextmanager
async def traced_server(
    exporter: Any = None, share: float = 1, **tracing: Any
) -> AsyncIterator[tuple[PyropeServer, Any]]:
    """A server on this loop, and a function that sends it a command and reads the reply."""
    settings = make_settings(tracing={"share": share, **tracing})
    server = PyropeServer(settings, SystemClock(), exporter=exporter)
    await server.start()
    await server.loaded()
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)

    async def command(*words: Any) -> bytes:
        writer.write(encode(*words) + encode("ECHO", "that was it"))
        await writer.drain()
        reply = await reader.readuntil(b"$11\r\nthat was it\r\n")
        return reply.removesuffix(b"$11\r\nthat was it\r\n")

    try:
        yield server, command
    finally:
        writer.close()
        await server.stop()


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def parts_of(exporter: InMemorySpanExporter, whole: ReadableSpan) -> list[ReadableSpan]:
    found = [
        span
        for span in exporter.get_finished_spans()
        if span.parent is not None and span.parent.span_id == whole.context.span_id
    ]
    return sorted(found, key=lambda span: span.start_time or 0)


async def test_a_search_has_its_parts_one_behind_the_other() -> None:
    exporter = InMemorySpanExporter()
    async with traced_server(exporter) as (_, command):
        await command("VECTOR.CREATE", "i", "DIM", 2, "TYPE", "FLAT", "CACHE", "EXACT")
        await command("VECTOR.ADD", "i", "a", "FP32", blob(1, 0))
        told = await command("VECTOR.SEARCH", "i", "FP32", blob(1, 0), "WITHINFO")
        await command("VECTOR.SEARCH", "i", "FP32", blob(1, 0), "CACHE", "OFF")
        await command("VECTOR.SEARCH", "i", "FP32", blob(1, 0), "WITHINFO")
    miss, off, hit = named(exporter, "VECTOR.SEARCH")
    for whole, level in ((miss, "miss"), (off, "off")):
        parts = parts_of(exporter, whole)
        assert [part.name for part in parts] == PARTS
        assert parts[0].attributes == {"pyrope.cache": level}
        ends = [part.end_time for part in parts]
        assert [part.start_time for part in parts[1:]] == ends[:-1]
        assert (whole.start_time or 0) <= (parts[0].start_time or 0)
        assert (ends[-1] or 0) <= (whole.end_time or 0)
        assert {part.context.trace_id for part in parts} == {whole.context.trace_id}
    (only,) = parts_of(exporter, hit)
    assert (only.name, only.attributes) == ("cache", {"pyrope.cache": "exact"})
    assert miss.attributes is not None
    assert str(miss.attributes["pyrope.request_id"]).encode() in told
    assert miss.attributes["pyrope.tenant"] == "default"
    assert miss.resource.attributes["service.name"] == "pyrope"


@pytest.mark.parametrize(
    "words",
    [
        ("VECTOR.ADD", "i", "b", "FP32", blob(0, 1)),
        ("VECTOR.MADD", "i", "FP32", blob(0, 1), "IDS", 1, "b"),
        ("VECTOR.SETATTR", "i", "a", "{}"),
        ("VECTOR.DEL", "i", "a"),
    ],
    ids=lambda words: words[0],
)
async def test_a_write_has_its_commit(words: tuple[Any, ...]) -> None:
    exporter = InMemorySpanExporter()
    async with traced_server(exporter) as (_, command):
        await command("VECTOR.CREATE", "i", "DIM", 2)
        await command("VECTOR.ADD", "i", "a", "FP32", blob(1, 0))
        await command(*words)
    whole = named(exporter, words[0])[-1]
    (commit,) = parts_of(exporter, whole)
    assert commit.name == "commit"
    assert (whole.start_time or 0) <= (commit.start_time or 0) < (commit.end_time or 0)
    assert (commit.end_time or 0) <= (whole.end_time or 0)


async def test_errors_are_told_by_their_prefix_and_nothing_else() -> None:
    exporter = InMemorySpanExporter()
    async with traced_server(exporter) as (_, command):
        await command("VECTOR.CREATE", "i", "DIM", 2, "TYPE", "FLAT")
        await command("VECTOR.SEARCH", "nowhere", "FP32", blob(1, 0))
        await command("VECTOR.SEARCH", "i", "FP32", blob(1, 0, 0))
        await command("VECTOR.CREATE", "i", "DIM", 2)
        await command("VECTOR.SEARCH", "i", "FP32", blob(1, 0), "CACHE", "ONLY")
    errors = [
        (span.name, (span.attributes or {})["error.type"])
        for span in exporter.get_finished_spans()
        if span.status.status_code is StatusCode.ERROR
    ]
    assert errors == [
        ("VECTOR.SEARCH", "NOINDEX"),
        ("VECTOR.SEARCH", "DIM"),
        ("VECTOR.CREATE", "EXISTS"),
        ("VECTOR.SEARCH", "BUSY"),
    ]
    assert "nowhere" not in "".join(span.to_json() for span in exporter.get_finished_spans())


async def test_the_share_that_is_traced_is_the_one_that_was_set() -> None:
    exporter = InMemorySpanExporter()
    async with traced_server(exporter, share=0.2) as (_, command):
        for _ in range(300):
            await command("PING")
    # Of 300; the chance to be outside is 10^-6.
    assert 25 < len(named(exporter, "PING")) < 100


async def test_a_share_of_none_leaves_handlers_as_they_are() -> None:
    server = PyropeServer(make_settings(), SystemClock())
    table = build_table()
    for name, entry in Dispatcher(server.server.commands).entries.items():
        assert entry.run is table[name].handler
    code = (
        "import sys, asyncio\n"
        "from pyrope.clock import SystemClock\n"
        "from pyrope.config import Settings\n"
        "from pyrope.server.lifecycle import PyropeServer\n"
        "PyropeServer(Settings(in_memory=True, http_port=0), SystemClock())\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


async def test_spans_reach_a_collector_by_otlp() -> None:
    received: list[HttpRequest] = []

    async def collect(request: HttpRequest) -> HttpReply:
        received.append(request)
        return HttpReply(200, b"", {"content-type": "application/x-protobuf"})

    collector = HttpServer(collect)
    await collector.start()
    try:
        endpoint = f"{collector.origin}/v1/traces"
        async with traced_server(endpoint=endpoint, service_name="pyrope-test") as (
            server,
            command,
        ):
            await command("VECTOR.CREATE", "i", "DIM", 2, "TYPE", "FLAT")
            await command("VECTOR.SEARCH", "i", "FP32", blob(1, 0))
        tracing = server.server.tracing
        assert tracing is not None
        spans = []
        for request in received:
            assert (request.method, request.path) == ("POST", "/v1/traces")
            message = ExportTraceServiceRequest.FromString(request.body)
            for resource in message.resource_spans:
                names = {one.key: one.value.string_value for one in resource.resource.attributes}
                assert names["service.name"] == "pyrope-test"
                spans += [span.name for scope in resource.scope_spans for span in scope.spans]
        assert {"VECTOR.CREATE", "VECTOR.SEARCH", *PARTS} <= set(spans)
        assert (tracing.exported_total, tracing.dropped_total) == (len(spans), 0)
    finally:
        await collector.stop()


async def test_a_collector_that_refuses_costs_nothing_but_the_spans() -> None:
    async def refuse(request: HttpRequest) -> HttpReply:
        return HttpReply(400)

    collector = HttpServer(refuse)
    await collector.start()
    before = set(threading.enumerate())
    try:
        endpoint = f"{collector.origin}/v1/traces"
        async with traced_server(endpoint=endpoint) as (server, command):
            assert await command("PING") == b"+PONG\r\n"
        tracing = server.server.tracing
        assert tracing is not None
        assert tracing.exported_total == 0
        assert tracing.dropped_total > 0
    finally:
        await collector.stop()
    assert set(threading.enumerate()) <= before
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrope.tracing.opentelemetry", None)
    with pytest.raises(PyropeError, match="pyrope-server\\[tracing\\]"):
        PyropeServer(make_settings(tracing={"share": 0.5}), SystemClock())


@pytest.mark.parametrize(
    "tracing", [{"share": 1.5}, {"share": -1}, {"endpoint": "collector:4318"}, {"endpoint": ""}]
)
def test_settings_that_make_no_sense_are_refused(tracing: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tracing"):
        make_settings(tracing=tracing)
