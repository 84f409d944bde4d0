"""Start and stop: nothing is left behind, whatever is under way."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from control import asking, control_server, problem
from processes import pyrope_process
from pyrope.clock import SystemClock
from pyrope.http.control_plane import HttpControlPlane
from pyrope.server.lifecycle import PyropeServer
from servers import RunningServer, free_port, make_settings

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


def sockets_and_threads() -> tuple[set[str], set[threading.Thread]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - Path would hold one open itself
        try:
            target = str(Path(f"/proc/self/fd/{name}").readlink())
        except FileNotFoundError:
            continue
        if "socket" in target:
            found.add(target)
    return found, set(threading.enumerate())


async def test_a_stopped_server_leaves_no_task_thread_socket_or_timer() -> None:
    before = sockets_and_threads()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for _ in range(2):
        settings = make_settings(http_port=free_port())
        server = PyropeServer(settings, SystemClock(), HttpControlPlane)
        addresses = await server.start()
        assert addresses[-1] == f"http://127.0.0.1:{settings.http_port}"
        assert server.server.listening == addresses
        await server.loaded()
        # One that stays open, one that has sent half of a request, and one that does nothing.
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.http_port)
        writer.write(REQUEST)
        assert b"200 OK" in await reader.readuntil(b"}")
        half, half_writer = await asyncio.open_connection("127.0.0.1", settings.http_port)
        half_writer.write(REQUEST[:20])
        idle, idle_writer = await asyncio.open_connection("127.0.0.1", settings.http_port)
        await asyncio.sleep(0.01)
        began = time.monotonic()
        await server.stop()
        assert time.monotonic() - began < 5
        for one, its_writer in ((reader, writer), (half, half_writer), (idle, idle_writer)):
            assert await one.read() == b""
            its_writer.close()
            await its_writer.wait_closed()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert sockets_and_threads() == before
    assert handlers == {number: signal.getsignal(number) for number in handlers}


async def test_a_server_can_be_stopped_while_it_loads_and_right_after_its_start() -> None:
    server = PyropeServer(make_settings(http_port=free_port()), SystemClock(), HttpControlPlane)
    await server.start()
    await server.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# -- what is under way --------------------------------------------------------------------------

endless = APIRouter()


@endless.get("/events")
async def events(request: Request) -> StreamingResponse:
    """Goes on until the server stops, as server-sent events do."""
    stopping: asyncio.Event = request.app.state.gate.stopping

    async def parts() -> AsyncIterator[bytes]:
        while not stopping.is_set():
            yield b"data: x\n\n"
            try:
                await asyncio.wait_for(stopping.wait(), 0.01)
            except TimeoutError:
                continue
        yield b"data: end\n\n"

    return StreamingResponse(parts(), media_type="text/event-stream")


@endless.get("/deaf")
async def deaf() -> StreamingResponse:
    """Goes on whatever happens."""

    async def parts() -> AsyncIterator[bytes]:
        while True:
            yield b"data: x\n\n"
            await asyncio.sleep(0.01)

    return StreamingResponse(parts(), media_type="text/event-stream")


@endless.get("/slow")
async def slow() -> dict[str, bool]:
    await asyncio.sleep(0.3)
    return {"done": True}


def with_endless(server: Any, context: ssl.SSLContext | None) -> HttpControlPlane:
    return HttpControlPlane(server, context, endless)


async def stopped_while(path: str, **settings: Any) -> tuple[bytes, float]:
    """What is received by who asks for `path` when the server stops, and how long that takes."""
    made = make_settings(http_port=free_port(), **settings)
    server = PyropeServer(made, SystemClock(), with_endless)
    await server.start()
    await server.loaded()
    reader, writer = await asyncio.open_connection("127.0.0.1", made.http_port)
    writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())
    await asyncio.sleep(0.1)
    began = time.monotonic()
    await server.stop()
    took = time.monotonic() - began
    try:
        received = await reader.read()
    except ConnectionResetError:
        received = b""
    writer.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return received, took


async def test_events_end_when_the_server_stops() -> None:
    received, took = await stopped_while("/events")
    assert b"data: end" in received
    assert received.endswith(b"0\r\n\r\n")
    assert took < 5


async def test_a_request_under_way_is_answered_before_the_server_stops() -> None:
    received, took = await stopped_while("/slow")
    assert received.endswith(b'{"done":true}')
    assert b"200 OK" in received
    assert took < 5


async def test_what_does_not_end_is_ended_after_the_grace() -> None:
    _, took = await stopped_while("/deaf", shutdown_timeout_s=0.3)
    assert 0.2 < took < 5


# -- addresses ----------------------------------------------------------------------------------


async def test_a_port_that_is_taken_is_an_error_and_leaves_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = make_settings(http_port=taken.getsockname()[1])
        server = PyropeServer(settings, SystemClock(), HttpControlPlane)
        with pytest.raises(OSError, match="in use"):
            await server.start()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    with socket.create_server(("127.0.0.1", settings.port)):
        pass  # nobody listens on the other port either


def test_a_port_for_nobody_is_an_error() -> None:
    with pytest.raises(ValueError, match="http_port is set"):
        PyropeServer(make_settings(http_port=free_port()), SystemClock())


def serve(*flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pyrope", "serve", "--in-memory", *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_the_ready_line_names_both_addresses_and_a_signal_drains() -> None:
    port, http_port = free_port(), free_port()
    with serve("--port", str(port), "--http-port", str(http_port)) as process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if " ready on " in line)
            expected = f"ready on redis://127.0.0.1:{port} http://127.0.0.1:{http_port}"
            assert line.strip().endswith(expected)
            address = f"http://127.0.0.1:{http_port}"
            with httpx2.Client(base_url=address, trust_env=False, verify=False) as client:
                assert client.get("/readyz").json() == {"status": "ready"}
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
        finally:
            process.kill()


def test_a_taken_http_port_ends_the_command_with_a_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flags = ("--port", str(free_port()), "--http-port", str(taken.getsockname()[1]))
        with serve(*flags) as process:
            _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot start" in err
    assert "Traceback" not in err


def test_without_a_port_nothing_of_it_is_loaded() -> None:
    code = (
        "import asyncio, json, sys\n"
        "from functools import partial\n"
        "from pyrope.clock import SystemClock\n"
        "from pyrope.config import Settings\n"
        "from pyrope.http.control_plane import HttpControlPlane\n"
        "from pyrope.server.lifecycle import PyropeServer\n"
        "async def main():\n"
        f"    settings = Settings(port={free_port()}, http_port=0, in_memory=True)\n"
        "    server = PyropeServer(settings, SystemClock(), HttpControlPlane)\n"
        "    await server.start()\n"
        "    await server.loaded()\n"
        "    await server.stop()\n"
        "asyncio.run(main())\n"
        "print(json.dumps(sorted({'fastapi', 'uvicorn', 'starlette'} & sys.modules.keys())))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


# -- health -------------------------------------------------------------------------------------


def test_a_server_that_loads_is_alive_and_not_ready(tmp_path: Path) -> None:
    with control_server(tmp_path / "data") as server, asking(server) as client:
        client.post("/v1/indexes", json={"name": "i", "dim": 2})
        service = server.pyrope.server.service
        service.loading = True
        try:
            assert client.get("/healthz").json() == {"status": "ok"}
            loading = client.get("/readyz")
            problem(loading, 503, "LOADING")
            assert loading.headers["retry-after"] == "1"
            problem(client.get("/v1/indexes"), 503, "LOADING")
        finally:
            service.loading = False
        assert client.get("/readyz").json() == {"status": "ready"}


def wait_until_it_listens(http: httpx2.Client) -> None:
    """The control plane of a server that answers PING already."""
    deadline = time.monotonic() + 30
    while True:
        try:
            http.get("/healthz")
        except httpx2.ConnectError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


def test_a_server_whose_disk_refuses_is_not_ready_until_it_takes_writes(tmp_path: Path) -> None:
    def ignore_the_signal() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    http_port = free_port()
    address = f"http://127.0.0.1:{http_port}"
    flags = ("--http-port", str(http_port), "--log-level", "warning")
    with (
        pyrope_process(tmp_path / "data", *flags, prepare=ignore_the_signal) as process,
        process.client() as client,
        httpx2.Client(base_url=address, trust_env=False, verify=False) as http,
    ):

        def limit_files(nbytes: int) -> None:
            # Writes past this fail with EFBIG, as they would with ENOSPC on a full disk.
            limits = (nbytes, resource.RLIM_INFINITY)
            resource.prlimit(process.process.pid, resource.RLIMIT_FSIZE, limits)

        client.execute_command("VECTOR.CREATE", "i", "DIM", 1024)
        row = ("VECTOR.ADD", "i", "a", "FP32", b"\0\0\x80?" * 1024)
        client.execute_command(*row)
        wait_until_it_listens(http)
        assert http.get("/readyz").status_code == 200
        limit_files(4096)
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            client.execute_command(*row)
        problem(http.get("/readyz"), 503, "MISCONF")
        assert http.get("/healthz").status_code == 200
        limit_files(resource.RLIM_INFINITY)
        # Nobody has written since: it has tried by itself.
        assert http.get("/readyz").json() == {"status": "ready"}


def test_a_client_that_goes_away_in_the_middle_is_nobodys_loss(server_with_index: Any) -> None:
    control: RunningServer = server_with_index
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", control.settings.http_port), 10) as connection:
            connection.sendall(b"POST /v1/indexes/i/build HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with asking(control) as client:
        assert client.get("/healthz").status_code == 200


@pytest.fixture
def server_with_index() -> Any:
    with control_server() as server, asking(server) as client:
        client.post("/v1/indexes", json={"name": "i", "dim": 2})
        yield server
