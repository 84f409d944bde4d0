"""Whose commands the event loop runs next: tenants take turns.

The loop is one thread, and hears of whatever has come in on all connections before it hears of
anything else. A tenant with a hundred connections that pipeline cheap commands would take a
hundred turns for each one of another tenant. So, while several tenants are about, each has a share
of every round of the loop: what comes in on its connections once that is used up is put off, unread
and unparsed, until the next rounds, in each of which tenants that wait have their shares again, and
connections of one tenant follow one another in the order in which they were put off.

A tenant that is alone is never put off: it costs a comparison for each packet to know that.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

_SHARE_S = 0.0005
"""What a tenant may take of a round before the rest has to wait. A packet is not cut short by it: a
connection's own turn, which is of the same order, does that. Less makes the flood pay more for
being put off, more makes the others wait longer (`python -m benchmarks.noisy_neighbour`)."""

NOBODY = ""
"""In a tenant's place, of those that have not signed in. They have a share where there are shares,
and do not bring them about: a lone tenant's clients may come and go all the time."""

_CONTENDED_S = 1.0
"""Tenants that have sent something within so long of one another are in each other's way."""


class Turns:
    """Of one loop; for use on it.

    Attributes:
        alone: the tenant that is known to be alone, and need not ask; None: there is none such.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.alone: str | None = None
        self._monotonic = monotonic
        self._tenant: str | None = None
        self._contended_until = float("-inf")
        # Seconds of this round that are used up, by tenant.
        self._used: dict[str, float] = {}
        self._waiting: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()
        self._is_round_due = False

    def may_run(self, tenant: str, now: float) -> bool:
        """Whether what has come in of a tenant may be looked at now, in this round."""
        if tenant != self._tenant and tenant:
            if self._tenant is not None:
                self._contended_until = now + _CONTENDED_S
            self._tenant = tenant
            self.alone = None
        if now >= self._contended_until:
            self.alone = tenant or None
            return True
        return self._used.get(tenant, 0.0) < _SHARE_S and tenant not in self._waiting

    def used(self, tenant: str, began: float) -> None:
        """A tenant has had the loop to itself since then."""
        now = self._monotonic()
        if now < self._contended_until:
            self._used[tenant] = self._used.get(tenant, 0.0) + now - began
            self._have_round()

    def wait(self, tenant: str, go_on: Callable[[], None]) -> None:
        """Have this called when it is the tenant's turn: not in this round."""
        waiting = self._waiting.get(tenant)
        if waiting is None:
            self._waiting[tenant] = deque((go_on,))
        else:
            waiting.append(go_on)
        self._have_round()

    def _have_round(self) -> None:
        if not self._is_round_due:
            self._is_round_due = True
            # Before it runs, the loop looks at its sockets.
            asyncio.get_running_loop().call_soon(self._round)

    def _round(self) -> None:
        self._is_round_due = False
        self._used.clear()
        waiting = self._waiting
        for tenant in list(waiting):
            queue = waiting[tenant]
            began = now = self._monotonic()
            # What is put off again meanwhile is for the next round.
            for _ in range(len(queue)):
                queue.popleft()()
                now = self._monotonic()
                if now - began >= _SHARE_S:
                    break
            self._used[tenant] = now - began
            if not queue:
                del waiting[tenant]
        if waiting or self._used:
            self._have_round()
