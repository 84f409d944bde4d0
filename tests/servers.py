"""Real servers for tests: in this process, on a thread of their own, on a free port."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import redis
import uvloop

from pyrope.clock import Clock, SystemClock
from pyrope.config import Settings
from pyrope.http.control_plane import HttpControlPlane
from pyrope.server.lifecycle import PyropeServer

T = TypeVar("T")


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RunningServer:
    """A server on its own event loop, in its own thread."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.settings = settings
        self.port = settings.port
        self.loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._failures: list[BaseException] = []
        self._clock = clock
        self._thread = threading.Thread(target=self._main, name="server-under-test")
        self._thread.start()
        if not self._ready.wait(60):
            raise TimeoutError("the server did not start")
        if self._failures:
            self._thread.join()
            raise self._failures[0]

    def _main(self) -> None:
        try:
            self.loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001 - it is raised in the test's thread
            self._failures.append(error)
            self._ready.set()
        finally:
            self.loop.close()

    async def _serve(self) -> None:
        self.pyrope = PyropeServer(self.settings, self._clock, HttpControlPlane)
        await self.pyrope.start()
        try:
            await self.pyrope.loaded()
            self._ready.set()
            await self.pyrope.wait_for_shutdown()
        finally:
            await self.pyrope.stop()
        self.left_tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def stop(self) -> None:
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.pyrope.request_stop)
        self._thread.join(60)
        if self._failures:
            raise self._failures[0]

    def client(self, **options: Any) -> redis.Redis:
        return redis.Redis(port=self.port, **{"protocol": 2} | options)

    def connect(self) -> socket.socket:
        """A bare socket."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)


@contextmanager
def running_server(
    data_dir: Path | None = None, clock: Clock | None = None, **settings: Any
) -> Iterator[RunningServer]:
    """A server that is stopped at the end. Without a directory it is in memory."""
    server = RunningServer(make_settings(data_dir, **settings), clock or SystemClock())
    try:
        yield server
    finally:
        server.stop()


def make_settings(data_dir: Path | None = None, **settings: Any) -> Settings:
    values: dict[str, Any] = {"port": free_port(), "http_port": 0, "in_memory": data_dir is None}
    if data_dir is not None:
        values["data_dir"] = data_dir
    return Settings(**(values | settings))


def exchange(connection: socket.socket, data: bytes, *, replies: bytes = b"") -> bytes:
    """Send bytes and read until `replies` has been received, or the peer closes."""
    connection.sendall(data)
    received = b""
    while not replies or replies not in received:
        part = connection.recv(65536)
        if not part:
            break
        received += part
    return received


def encode(*args: bytes | str | int) -> bytes:
    """A command as RESP."""
    raw = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
    return b"*%d\r\n" % len(raw) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in raw)
