"""Hits that are told by the bytes of a packet, without parsing it.

A client that asks again sends the very same bytes. What the caches answered to them is sent again,
if nothing has happened in between: no write to the index, nothing of what decides about requests,
no end of the answer's time to live. Whatever is not plain goes the long way, which looks at all of
this command by command, and says what may be repeated.

What can wait is done once in a round of the event loop, which is a fraction of a millisecond: the
tenant's account is looked up, and whether others want the loop; vectors that have expired are taken
out; what was sent is charged and counted at the end of the round. (Redis, too, reads its clock
once a round.) Of tenants with a rate, a concurrency or a budget each request is decided upon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from xxhash import xxh3_64_intdigest

from pyrope.commands.context import Server
from pyrope.metrics import CommandStats
from pyrope.server.turns import Turns
from pyrope.service.repeated import Repeated, Repeating
from pyrope.tenants.cost import REQUEST
from pyrope.tenants.enforcer import Account
from pyrope.tenants.usage import micro_of

COMMAND = "VECTOR.SEARCH"
"""What all of this is about."""

_HIT_MICRO = micro_of(REQUEST)
_LEVEL = "exact"
# Where commands are logged that take so little, each is timed with all that it takes.
_SLOW_US = 1000


class _Shortcut:
    """Bytes in three parts, of which the middle is the query, and what answers them."""

    __slots__ = (
        "cache",
        "epoch",
        "head",
        "log",
        "position",
        "query",
        "reply",
        "reply_size",
        "size",
        "start",
        "stored",
        "tail",
    )

    def __init__(self, data: bytes, start: int, repeated: Repeated) -> None:
        self.size = len(data)
        self.start = start
        self.head = data[:start]
        self.query = repeated.query
        self.tail = data[start + len(repeated.query) :]
        self.reply = repeated.reply
        self.reply_size = len(repeated.reply)
        self.stored = repeated.stored
        self.position = repeated.position
        self.epoch = repeated.epoch
        self.cache = repeated.cache
        self.log = repeated.cache.log


class Shortcuts:
    """Of one tenant, and one version of the protocol. For the event loop.

    Attributes:
        now: monotonic time in seconds at which the last one was taken.
    """

    __slots__ = (
        "_account",
        "_bounded",
        "_fresh",
        "_is_open",
        "_monotonic",
        "_seconds",
        "_server",
        "_stats",
        "_table",
        "_taken",
        "_turns",
        "now",
        "protocol",
        "tenant",
    )

    def __init__(
        self, server: Server, turns: Turns, stats: CommandStats, tenant: str, protocol: int
    ) -> None:
        self.tenant = tenant
        self.protocol = protocol
        self.now = 0.0
        self._server = server
        self._turns = turns
        self._stats = stats
        self._monotonic = server.clock.monotonic
        self._table: dict[int, _Shortcut] = {}
        # Of this round: whether it is known that shortcuts may be taken, by whom, and whether its
        # limits have a say; those taken, and how long that took; caches without expired vectors.
        self._is_open = False
        self._account: Account | None = None
        self._bounded: Account | None = None
        self._taken: list[_Shortcut] = []
        self._seconds = 0.0
        self._fresh: set[Repeating] = set()

    def __len__(self) -> int:
        return len(self._table)

    def reply_to(self, data: bytes) -> bytes | None:
        """The reply to a packet; None: it is to be read.

        Raises:
            BudgetError, QuotaError: the tenant's limits do not let it in.
        """
        found = self._table.get(xxh3_64_intdigest(data))
        if (
            found is None
            or len(data) != found.size
            or not data.startswith(found.query, found.start)
            or data[: found.start] != found.head
            or not data.endswith(found.tail)
        ):
            return None
        self.now = now = self._monotonic()
        if not self._is_open and not self._open(now):
            return None
        cache = found.cache
        if cache not in self._fresh:
            cache.remove_expired()
            self._fresh.add(cache)
        stored = found.stored
        if (
            found.position != found.log.position
            or found.epoch != cache.epoch
            or stored.expires_at <= now
        ):
            return None
        bounded = self._bounded
        if bounded is not None:
            bounded.admit()
            bounded.leave()
        self._taken.append(found)
        return found.reply

    def rejected(self) -> None:
        """Count a command that was not let in."""
        self._stats.rejected += 1

    def learn(self, data: bytes, repeated: Repeated) -> Callable[[], None] | None:
        """A packet that was a single command, and nothing else, was given this answer.

        Returns:
            What forgets it. None: it is known, or the query is not in the packet as it is.
        """
        digest = xxh3_64_intdigest(data)
        known = self._table.get(digest)
        start = data.find(repeated.query)
        if start < 0 or (known is not None and known.stored is repeated.stored):
            return None
        self._table[digest] = shortcut = _Shortcut(data, start, repeated)
        return partial(self._forget, digest, shortcut)

    def _forget(self, digest: int, shortcut: _Shortcut) -> None:
        if self._table.get(digest) is shortcut:
            del self._table[digest]

    def _open(self, began: float) -> bool:
        """Begin a round, if shortcuts may be taken in it; the first one began at this time."""
        server, service = self._server, self._server.service
        account = service.tenancy.enforcer.enter(self.tenant)
        if (
            service.loading
            or service.guard.is_on
            or self._turns.alone != self.tenant
            or 0 <= server.settings.slowlog.slower_than_us < _SLOW_US
        ):
            return False
        self._account = account
        self._bounded = account if account.is_bounded else None
        self._is_open = True
        asyncio.get_running_loop().call_soon(self._close)
        self._seconds = self._monotonic() - began
        return True

    def _close(self) -> None:
        """The round is over: count what was sent in it."""
        self._is_open = False
        self._fresh.clear()
        taken, self._taken = self._taken, []
        account, self._account = self._account, None
        if not taken or account is None:
            return
        if self._bounded is None:
            account.admit_many(len(taken))
        account.charge_hits(len(taken), _HIT_MICRO, _LEVEL)
        # Each as if it had taken what the first one took, which is an upper bound of sorts.
        self._stats.record_alike(self._seconds, len(taken))
        nbytes_in = nbytes_out = times = 0
        cache, query = taken[0].cache, taken[0].query
        for one in taken:
            one.stored.count += 1
            nbytes_in += one.size
            nbytes_out += one.reply_size
            if one.cache is not cache:
                cache.repeated(times, query)
                cache, times = one.cache, 0
            times += 1
            query = one.query
        cache.repeated(times, query)
        counters = self._server.counters
        counters.shortcuts_total += len(taken)
        counters.net_input_bytes_total += nbytes_in
        counters.net_output_bytes_total += nbytes_out


class ShortcutTables:
    """Of all tenants. For the event loop.

    Args:
        stats: of the command.
    """

    def __init__(self, server: Server, turns: Turns, stats: CommandStats) -> None:
        self._server = server
        self._turns = turns
        self._stats = stats
        self._tables: dict[tuple[str, int], Shortcuts] = {}

    def of(self, tenant: str, protocol: int) -> Shortcuts:
        """Made when it is first asked for; tenants that have come and gone leave an empty one."""
        table = self._tables.get((tenant, protocol))
        if table is None:
            table = self._tables[tenant, protocol] = Shortcuts(
                self._server, self._turns, self._stats, tenant, protocol
            )
        return table
