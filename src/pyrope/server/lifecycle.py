"""From settings to a serving process, and back to nothing."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from pyrope.clock import Clock
from pyrope.commands.context import Server
from pyrope.commands.latency import LatencyMonitor
from pyrope.commands.slowlog import SlowLog
from pyrope.commands.table import build_table
from pyrope.config import Settings
from pyrope.log import get_logger
from pyrope.resp.writer import encode_bulk
from pyrope.server.dispatch import Dispatcher
from pyrope.server.garbage import WORTH_A_LOOK, GarbageCollection
from pyrope.server.listener import Listener, tls_context
from pyrope.server.loop_lag import LoopLag
from pyrope.server.traced import traced
from pyrope.server.tracing import Tracing
from pyrope.service.service import Service
from pyrope.tracing.tracer import Exporter, Tracer

_log = get_logger(__name__)


class ControlPlane(Protocol):
    """What listens beside RESP."""

    async def start(self) -> str:
        """Listen. Returns the address. Raises OSError; nothing is left then."""
        ...

    async def stop(self, grace: float) -> None:
        """Answer what is under way, for so many seconds at the most, and close everything."""
        ...


MakeControlPlane = Callable[[Server, ssl.SSLContext | None], ControlPlane]
"""Makes the control plane of a server; with TLS, if there is a context."""


class PyropeServer:
    """One server: service, command table and sockets.

    `start` and `stop` leave nothing behind when they are through: no task, thread or socket.

    Args:
        owns_process: nothing else of importance runs in this process, so that the server may say
            when the interpreter looks for garbage.

    Args:
        control_plane: makes what listens on `http_port`.
        exporter: sends traces, if any are made; None: to the endpoint of the settings.

    Raises:
        ValueError: a port is set for a control plane, and there is none.
        PyropeError: commands are to be traced, and the packages for that are not installed.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        control_plane: MakeControlPlane | None = None,
        *,
        owns_process: bool = False,
        exporter: Exporter | None = None,
    ) -> None:
        if settings.http_port and control_plane is None:
            raise ValueError("http_port is set, and nothing is there to listen on it")
        self._settings = settings
        self._make_control_plane = control_plane
        self._control_plane: ControlPlane | None = None
        table = build_table()
        self._tracing: Tracing | None = None
        tracer: Tracer | None = None
        if settings.tracing.share:
            self._tracing = Tracing(settings.tracing, clock, exporter)
            tracer = self._tracing.tracer
            table = traced(table, tracer)
        self._service = Service(settings, clock, encode_bulk, tracer)
        self.server = Server(
            settings=settings,
            clock=clock,
            service=self._service,
            commands=table,
            slow_log=SlowLog(),
            latency=LatencyMonitor(),
            run_id=secrets.token_hex(20),
            started_at=clock.monotonic(),
            started_at_wall=clock.wall(),
            request_shutdown=self._request_shutdown,
            counters=self._service.counters,
            tracing=None if self._tracing is None else self._tracing.tracer,
        )
        self._tasks: set[asyncio.Task[Any]] = set()
        self._listener = Listener(self.server, Dispatcher(table), self._spawn)
        self._garbage: GarbageCollection | None = None
        if owns_process:
            self._garbage = self._listener.garbage = GarbageCollection(self._wasted)
        self._loop_lag = LoopLag(clock, self.server.loop_lag)
        self._shutdown = asyncio.Event()
        self._save_at_exit = True

    async def start(self) -> tuple[str, ...]:
        """Open the store, listen, begin to load. Returns the addresses.

        Until loading is over, commands that need data answer LOADING.

        Raises:
            StorageError: the data directory cannot be used.
            OSError, ssl.SSLError: an address or a TLS file cannot be used.
        """
        await self._service.start()
        if self._garbage is not None:
            self._garbage.start()
        try:
            self.server.listening = await self._listener.start()
            try:
                self.server.listening += await self._start_control_plane()
            except BaseException:
                await self._listener.stop(0)
                raise
        except BaseException:
            if self._garbage is not None:
                self._garbage.stop()
            await self._service.stop(save_graphs=False)
            raise
        self._loop_lag.start()
        if self._tracing is not None:
            self._tracing.start()
        return self.server.listening

    async def _start_control_plane(self) -> tuple[str, ...]:
        settings = self._settings
        if not settings.http_port or self._make_control_plane is None:
            return ()
        context = tls_context(settings.tls) if settings.http.tls else None
        control_plane = self._make_control_plane(self.server, context)
        address = await control_plane.start()
        self._control_plane = control_plane
        return (address,)

    async def loaded(self) -> None:
        """Return when everything is loaded; raises what stopped it."""
        await self._service.loaded()

    async def wait_for_shutdown(self) -> None:
        """Return once SHUTDOWN has been asked for."""
        await self._shutdown.wait()

    async def stop(self) -> None:
        """Drain, save, close. Idempotent."""
        grace = self._settings.shutdown_timeout_s
        closing = [self._listener.stop(grace)]
        control_plane, self._control_plane = self._control_plane, None
        if control_plane is not None:
            closing.append(control_plane.stop(grace))
        await asyncio.gather(*closing)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._loop_lag.stop()
        if self._tracing is not None:
            await self._tracing.stop()
        await self._service.stop(save_graphs=self._save_at_exit)
        if self._garbage is not None:
            self._garbage.stop()

    def _wasted(self) -> int:
        return self._listener.closed_total + WORTH_A_LOOK * self._service.dropped_total

    def request_stop(self) -> None:
        """Have `wait_for_shutdown` return."""
        self._shutdown.set()

    def _request_shutdown(self, *, save: bool) -> None:
        self._save_at_exit = save
        self._shutdown.set()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def serve(
    settings: Settings,
    clock: Clock,
    *,
    ready: Callable[[str], None] | None = None,
    control_plane: MakeControlPlane | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or SHUTDOWN; return when everything is drained and closed.

    Args:
        ready: called once with the addresses, when everything is loaded.
        control_plane: makes what listens on `http_port`.

    Raises:
        StorageError, OSError, ssl.SSLError: the server could not start.
    """
    server = PyropeServer(settings, clock, control_plane, owns_process=True)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.request_stop)
    try:
        addresses = await server.start()
        try:
            stopped = asyncio.create_task(server.wait_for_shutdown())
            loaded = asyncio.create_task(server.loaded())
            await asyncio.wait({stopped, loaded}, return_when=asyncio.FIRST_COMPLETED)
            if loaded.done():
                await loaded
                if ready is not None:
                    ready(" ".join(addresses))
                await stopped
            else:
                loaded.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await loaded
            _log.info("stopping")
        finally:
            stopped.cancel()
            await server.stop()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    _log.info("stopped")
