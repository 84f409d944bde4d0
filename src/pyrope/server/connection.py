"""One client's connection: bytes to commands, commands to replies, in order.

Rules:
- Commands are run as they arrive, and those that cannot answer at once (`Pending`, awaitables) do
  not hold up the ones behind them, except as `Access` says: the effects are those of one command
  after another.
- Replies leave in the order of the commands. Each unanswered command has a place in `_replies`; a
  reply that is ready goes out when everything before it has gone.
- A command that must wait (for those before it, for room in the pipeline, for the client to read
  its replies) waits in `_backlog`, with everything behind it, and the socket is not read meanwhile:
  a client is slowed down by its own pipeline and nothing grows without bound.
- A client that goes away cancels what has not started. What has started is finished: a write may
  be on its way to the disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from types import CoroutineType
from typing import Any, cast

from pyrope.commands.admission import check_may_run
from pyrope.commands.context import (
    REPLY_OFF,
    REPLY_SKIP,
    REPLY_SKIP_NEXT,
    Client,
    Context,
    Pending,
    Server,
)
from pyrope.commands.spec import Access
from pyrope.errors import ProtocolError, PyropeError
from pyrope.log import get_logger
from pyrope.resp.limits import UNAUTHENTICATED_LIMITS, ReaderLimits
from pyrope.resp.reader import CommandReader
from pyrope.resp.writer import encode, encode_error
from pyrope.server.dispatch import Dispatcher, Entry
from pyrope.server.shortcuts import COMMAND as SHORTCUT_COMMAND
from pyrope.server.shortcuts import Shortcuts, ShortcutTables
from pyrope.server.turns import NOBODY, Turns
from pyrope.service.promise import Promise
from pyrope.tenants.enforcer import Account

_log = get_logger(__name__)

# What takes less is no spike, whatever the threshold, which is a number of milliseconds.
_SPIKE_S = 0.001
# A pipeline of quick commands runs for so long before others get their turn.
_TURN_S = 0.002
# Smaller replies wait for the end of their packet, which holds 256 KiB of commands at the most.
_LARGE_REPLY = 4096

_NONE, _READ, _WRITE, _EXCLUSIVE = Access.NONE, Access.READ, Access.WRITE, Access.EXCLUSIVE


class _Slot:
    """The place of one reply among the others.

    Attributes:
        data: the encoded reply; None until it is there.
        cancel: drops the command if it has not started; None where it cannot be dropped.
    """

    __slots__ = ("cancel", "data")

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.cancel: Callable[[], Any] | None = None


class Connection(asyncio.Protocol):
    """The asyncio side of one client.

    Attributes:
        admitted: whether `client` is there: not before the connection is made, nor for a client
            that was turned away.

    Args:
        admit: gives the new client, or the error to close with.
        closed: called once when the connection is gone.
        spawn: runs a coroutine as a task that outlives the connection.
    """

    client: Client

    def __init__(
        self,
        server: Server,
        dispatcher: Dispatcher,
        turns: Turns,
        tables: ShortcutTables,
        *,
        admit: Callable[[Connection, asyncio.Transport], Client | PyropeError],
        closed: Callable[[Connection], None],
        spawn: Callable[[Any], asyncio.Task[Any]],
    ) -> None:
        self.server = server
        self._dispatcher = dispatcher
        self._entries = dispatcher.entries
        self._turns = turns
        self._tables = tables
        # Those of the tenant and the protocol, while everything that came in has been answered and
        # the next packet may be a whole command; looked for by whom they have been of use to.
        self._shortcuts: Shortcuts | None = None
        self._takes_shortcuts = False
        self._admit = admit
        self._closed = closed
        self._spawn = spawn
        self._monotonic = server.clock.monotonic
        self._now = 0.0
        self._service = server.service
        self._registry = server.service.tenancy.registry
        self._enforcer = server.service.tenancy.enforcer
        self.admitted = False
        self._transport: asyncio.Transport | None = None
        self._reader = CommandReader(UNAUTHENTICATED_LIMITS)
        # What has come in when it was others' turn.
        self._put_off = b""
        self._out: list[bytes] = []
        self._replies: deque[_Slot] = deque()
        self._backlog: deque[list[bytes]] = deque()
        self._reads_running = 0
        self._writes_running = 0
        self._exclusive_running = False
        self._writing_paused = False
        self._reading_paused = False
        self._ending = False
        self._fatal: ProtocolError | None = None
        self._partial_since: float | None = None
        self._slowlog = server.settings.slowlog
        limits = server.settings.limits
        self._depth = limits.pipeline_depth
        self._output_limit = limits.output_buffer_bytes

    # -- asyncio ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport = cast("asyncio.Transport", transport)
        limits = self.server.settings.limits
        transport.set_write_buffer_limits(high=limits.output_high_water_bytes)
        admitted = self._admit(self, transport)
        if isinstance(admitted, PyropeError):
            self._ending = True
            transport.write(encode_error(admitted.prefix, admitted.message))
            transport.close()
            return
        self.client = admitted
        self.admitted = True
        self._context = Context(admitted, self.server)
        self._reader.limits = self._limits_of(admitted)

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        client = self.client
        shortcuts = self._shortcuts
        if shortcuts is not None and client.revision == self._registry.revision:
            try:
                reply = shortcuts.reply_to(data)
            except PyropeError as error:
                shortcuts.rejected()
                reply = encode_error(error.prefix, error.message)
                self.server.counters.count_error(error.prefix)
            if reply is not None:
                client.last_command_at = shortcuts.now
                client.last_command = SHORTCUT_COMMAND
                self._transport.write(reply)  # type: ignore[union-attr]  # it is open
                return
        self._shortcuts = None
        self.server.counters.net_input_bytes_total += len(data)
        client.last_command_at = self._now = began = self._monotonic()
        tenant = client.tenant if client.authenticated else NOBODY
        if self._put_off:
            self._put_off += data
        elif tenant == self._turns.alone:
            self._receive(data)
        elif self._turns.may_run(tenant, began):
            self._receive(data)
            self._turns.used(tenant, began)
        else:
            self._put_off = data
            self._pause_reading()
            self._turns.wait(tenant, self._take_turn)

    def _take_turn(self) -> None:
        """It is this tenant's turn: look at what has come in before."""
        if self._ending:
            return
        data, self._put_off = self._put_off, b""
        self._now = self._monotonic()
        self._receive(data)
        if not self._backlog:
            self._resume_reading()

    def _receive(self, data: bytes) -> None:
        reader = self._reader
        completed = False
        is_whole = self._partial_since is None
        while True:
            try:
                commands = reader.feed(data)
            except ProtocolError as error:
                self._fatal = error
                if not self._backlog:
                    self._end_with_error()
                break
            if commands:
                completed = True
                if self._backlog:
                    self._backlog.extend(commands)
                else:
                    self._run_all(commands)
            if reader.idle:
                self._partial_since = None
                if self._context.repeatable is not None:
                    self._learn(data if is_whole and len(commands) == 1 else None)
                break
            is_whole = False
            if not reader.stalled or self._ending:
                if completed or self._partial_since is None:
                    self._partial_since = self.client.last_command_at
                break
            data = b""
        if self._out or self._ending:
            self._flush()
        if self._takes_shortcuts:
            self._look_for_shortcuts()

    def _look_for_shortcuts(self) -> None:
        """Have the next packet looked up whole, if nothing else is going on."""
        client = self.client
        at_rest = not (
            self._replies
            or self._backlog
            or self._put_off
            or self._writing_paused
            or self._ending
            or client.quiet
            or self._partial_since is not None
        )
        self._shortcuts = self._tables.of(client.tenant, client.protocol) if at_rest else None

    def _learn(self, packet: bytes | None) -> None:
        """A reply may be sent again to the same bytes, if they were one command and nothing else.

        Args:
            packet: None: they were not.
        """
        repeatable, self._context.repeatable = self._context.repeatable, None
        if packet is None or repeatable is None:
            return
        replies, words = repeatable
        shortcuts = self._tables.of(self.client.tenant, self.client.protocol)
        replies.repeat(words, partial(shortcuts.learn, packet))
        self._takes_shortcuts = True

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._shortcuts = None

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._run_backlog()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ending = True
        self._transport = None
        self._backlog.clear()
        self._out.clear()
        for slot in self._replies:
            if slot.cancel is not None and slot.data is None:
                slot.cancel()
        self._closed(self)

    # -- what commands and the server see (Link) --------------------------------------------------

    def close_after_reply(self) -> None:
        """Run nothing more; close once everything answered so far has been sent."""
        self._ending = True
        self._backlog.clear()

    def kill(self) -> None:
        self._ending = True
        if self._transport is not None:
            self._transport.abort()

    @property
    def input_buffered(self) -> int:
        waiting = sum(len(arg) for command in self._backlog for arg in command)
        return self._reader.buffered + waiting + len(self._put_off)

    @property
    def output_buffered(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def in_flight(self) -> int:
        return len(self._replies)

    @property
    def partial_since(self) -> float | None:
        """Monotonic time at which the command that is still incomplete began to arrive.

        None while the server itself does not read.
        """
        return None if self._reading_paused else self._partial_since

    def drain(self) -> None:
        """Run nothing that has not begun; close when what has begun is answered."""
        self.close_after_reply()
        self._flush()

    # -- running commands -------------------------------------------------------------------------

    def _run_all(self, commands: list[list[bytes]]) -> None:
        until = self._now + _TURN_S
        for position, args in enumerate(commands):
            if self._ending:
                return
            late = self._now > until
            if late or not self._run(args):
                self._backlog.extend(commands[position:])
                self._pause_reading()
                if late:
                    self._yield()
                return

    def _yield(self) -> None:
        """Let others have their turn before the rest of a long pipeline."""
        self._flush()
        self._turns.wait(self.client.tenant, self._run_backlog)

    def _run_backlog(self) -> None:
        backlog = self._backlog
        self._now = self._monotonic()
        until = self._now + _TURN_S
        while backlog and not self._ending:
            if self._now > until:
                self._yield()
                return
            if not self._run(backlog[0]):
                self._flush()
                return
            # Running may have ended the connection, which clears the backlog.
            if backlog:
                backlog.popleft()
        if self._fatal is not None and not self._ending:
            self._end_with_error()
        self._flush()
        if not self._put_off:
            self._resume_reading()

    def _run(self, args: list[bytes]) -> bool:  # noqa: C901, PLR0912 - the hot path, in one piece
        """Run a command, or return False if it must wait."""
        if self._writing_paused or len(self._replies) >= self._depth:
            return False
        client = self.client
        entry = self._entries.get(args[0])
        if (
            entry is None
            or entry.subcommands
            or not entry.low <= len(args) <= entry.high
            or client.revision != self._registry.revision
            or entry.rank > client.rank
            or self._service.loading
        ):
            entry = self._admitted(args)
            if entry is None:
                return True
        if entry.access is not _NONE and self._must_wait(entry, args):
            return False
        client.last_command = entry.name
        began = self._now
        account: Account | None = None
        try:
            if entry.is_metered:
                context = self._context
                account = context.account = self._enforcer.enter(client.tenant)
                try:
                    context.strain = account.admit()
                except PyropeError as error:
                    # It has not run, so that it is none of those that failed.
                    entry.stats.rejected += 1
                    self._answer_error(error)
                    return True
            result = entry.run(self._context, args)  # type: ignore[misc]  # find() has looked
        except Exception as error:  # noqa: BLE001 - a bug of ours must not take others down
            if account is not None:
                account.leave()
            self._finish(entry, args, began, failed=True)
            known = isinstance(error, PyropeError)
            self._answer_error(error if known else self._internal(entry, error))  # type: ignore[arg-type]  # as seen
            return True
        kind = type(result)
        if kind is Pending:
            self._await_reply(entry, args, began, result.future, result.render, account)
        elif kind is CoroutineType:
            self._await_reply(entry, args, began, self._spawn(result), None, account)
        else:
            if account is not None:
                account.leave()
            # The end of one command is the beginning of the next: one look at the clock for each.
            self._now = now = self._monotonic()
            seconds = now - began
            entry.record(seconds)
            if seconds >= _SPIKE_S or 0 <= self._slowlog.slower_than_us <= seconds * 1e6:
                self._note_slow(entry, args, seconds)
            data = encode(result, client.protocol)
            if not client.quiet and not self._replies:
                self._out.append(data)
                if len(data) > _LARGE_REPLY:
                    # Sent at once, so that a client that does not read is noticed before the next.
                    self._flush()
            else:
                self._answer(data)
            if not entry.needs_authentication:
                self._reader.limits = self._limits_of(client)
        return True

    def _admitted(self, args: list[bytes]) -> Entry | None:
        """The entry of a command that may run now; None where it has been refused."""
        entry: Entry | None = None
        try:
            entry = self._dispatcher.find(args)
            if entry.closes:
                _log.warning(
                    "an HTTP request has been turned away: a page in a browser may be trying to "
                    "reach this server",
                    address=self.client.address,
                )
                self.kill()
                return None
            check_may_run(
                self.client,
                self._registry,
                entry.name,
                rank=entry.rank,
                loading=self._service.loading,
                needs_authentication=entry.needs_authentication,
                needs_loaded=entry.needs_loaded,
            )
        except PyropeError as error:
            if entry is not None:
                entry.stats.rejected += 1
            self._answer_error(error)
            return None
        return entry

    def _must_wait(self, entry: Entry, args: list[bytes]) -> bool:
        """Whether a command would overtake an earlier one that it must not overtake."""
        access = entry.access
        if self._exclusive_running:
            return True
        if access is _READ:
            return self._writes_running > 0
        if access is _WRITE:
            if self._reads_running > 0:
                return True
            if self.client.deferred is None or not self.client.has_deferred:
                return False
            # A write whose text is yet to be embedded stands in line with those before it.
            return entry.defers is None or not entry.defers(args)
        return self._writes_running > 0 or self._reads_running > 0

    def _await_reply(
        self,
        entry: Entry,
        args: list[bytes],
        began: float,
        future: asyncio.Future[Any] | Promise[Any],
        render: Callable[[Any, int], Any] | None,
        account: Account | None,
    ) -> None:
        """Have a reply sent when it is there; `account` has let the command in, if any has."""
        slot = _Slot()
        # A task has started; only what waits in a queue can be dropped.
        slot.cancel = future.cancel if render is not None else None
        self._replies.append(slot)
        access = entry.access
        if access is _READ:
            self._reads_running += 1
        elif access is _WRITE:
            self._writes_running += 1
        elif access is _EXCLUSIVE:
            self._exclusive_running = True
        muted = self._is_muted()
        future.add_done_callback(
            partial(
                self._replied,
                slot,
                entry,
                args,
                began,
                render,
                self.client.protocol,
                muted,
                account,
            )
        )

    def _replied(  # noqa: PLR0913, PLR0917 - all that is known before the reply is
        self,
        slot: _Slot,
        entry: Entry,
        args: list[bytes],
        began: float,
        render: Callable[[Any, int], Any] | None,
        protocol: int,
        muted: bool,  # noqa: FBT001 - bound by position, like the rest
        account: Account | None,
        future: asyncio.Future[Any] | Promise[Any],
    ) -> None:
        access = entry.access
        if access is _READ:
            self._reads_running -= 1
        elif access is _WRITE:
            self._writes_running -= 1
        elif access is _EXCLUSIVE:
            self._exclusive_running = False
        if account is not None:
            account.leave()
        if future.cancelled():
            # The client has gone, or the server is stopping: there is nobody to tell.
            slot.data = b""
            self._finish(entry, args, began, failed=True)
            return
        error = future.exception()
        if error is None:
            try:
                result = future.result()
                data = encode(result if render is None else render(result, protocol), protocol)
            except Exception as failure:  # noqa: BLE001 - a bug of ours must not take others down
                error = failure
        self._finish(entry, args, began, failed=error is not None)
        if error is not None:
            if not isinstance(error, PyropeError):
                error = self._internal(entry, error)
            self.server.counters.count_error(error.prefix)
            data = encode_error(error.prefix, error.message)
        slot.data = b"" if muted else data
        self._flush()
        if self._backlog:
            self._run_backlog()

    def _finish(
        self, entry: Entry, args: list[bytes], began: float, *, failed: bool = False
    ) -> None:
        seconds = self._monotonic() - began
        entry.stats.record(seconds)
        if failed:
            entry.stats.failed += 1
        if seconds >= _SPIKE_S or 0 <= self._slowlog.slower_than_us <= seconds * 1e6:
            self._note_slow(entry, args, seconds)

    def _note_slow(self, entry: Entry, args: list[bytes], seconds: float) -> None:
        self.server.note_slow(self.client, args, seconds, keeps_secret=entry.keeps_secret)

    # -- replying ---------------------------------------------------------------------------------

    def _is_muted(self) -> bool:
        """Whether the reply of the command at hand is not sent; the next one is another matter."""
        quiet = self.client.quiet
        if quiet:
            skips_next = quiet & REPLY_SKIP_NEXT
            self.client.quiet = quiet & REPLY_OFF | (REPLY_SKIP if skips_next else 0)
        return bool(quiet & (REPLY_OFF | REPLY_SKIP))

    def _answer(self, data: bytes) -> None:
        if self._is_muted():
            return
        if self._replies:
            slot = _Slot()
            slot.data = data
            self._replies.append(slot)
        else:
            self._out.append(data)

    def _answer_error(self, error: PyropeError) -> None:
        self.server.counters.count_error(error.prefix)
        self._answer(encode_error(error.prefix, error.message))

    def _end_with_error(self) -> None:
        """Say what was wrong with the bytes, after every reply before it, and close."""
        error = self._fatal
        self.server.counters.protocol_errors_total += 1
        self._answer(encode_error("ERR", str(error)))
        self.close_after_reply()

    def _flush(self) -> None:
        """Send what is ready, up to the first reply that is not there yet."""
        replies, out = self._replies, self._out
        while replies and replies[0].data is not None:
            out.append(replies.popleft().data)  # type: ignore[arg-type]  # not None, as seen
        transport = self._transport
        if transport is None:
            return
        if out:
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            # uvloop drops what is written to a closing transport.
            if data:
                self.server.counters.net_output_bytes_total += len(data)
                transport.write(data)
                # Writing more than the high water mark has called pause_writing by now.
                if self._writing_paused and transport.get_write_buffer_size() > self._output_limit:
                    self.server.counters.output_limit_disconnections_total += 1
                    _log.warning("client closed: output limit exceeded", client=self.client.id)
                    self.kill()
                    return
        if self._ending and not replies:
            transport.close()

    # -- odds and ends ----------------------------------------------------------------------------

    def _limits_of(self, client: Client) -> ReaderLimits:
        if not client.authenticated:
            return UNAUTHENTICATED_LIMITS
        limits = self.server.settings.limits
        return ReaderLimits(
            max_args=limits.max_args,
            max_arg_bytes=limits.max_arg_bytes,
            max_command_bytes=limits.max_command_bytes,
            max_inline_bytes=limits.max_inline_bytes,
        )

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and not self._ending and self._transport is not None:
            self._reading_paused = False
            if self._partial_since is not None:
                self._partial_since = self._now
            self._transport.resume_reading()

    def _internal(self, entry: Entry, error: BaseException) -> PyropeError:
        request_id = self.server.request_id(self.client)
        _log.error(
            "a command failed unexpectedly",
            command=entry.name,
            request_id=request_id,
            user=self.client.user,
            exc_info=error,
        )
        return PyropeError(
            f"internal error in '{entry.name}' ({type(error).__name__}); "
            f"see the log, request {request_id}"
        )
