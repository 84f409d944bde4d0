"""How often somebody may present a wrong key.

Failures are counted by login and origin together, and by origin alone. Each count is a leaky
bucket: so many failures at once, then one for each time that has passed (the Generic Cell Rate
Algorithm, ITU-T I.371, which needs one number a bucket: when it will be empty). While a bucket is
full, every attempt is refused, with the right key too, before anything is hashed. Such attempts
fill nothing, so that a program that goes on with a wrong key is refused for its login, and does not
use up what other logins of its host may still fail.

Nothing is counted by login alone: whoever could fill such a bucket from afar would lock a tenant
out of its own account. So the guesses at one login that the server answers grow with the addresses
that an attacker has; keys with 256 bits do not mind.

An origin is an IPv4 address; the first 64 bits of an IPv6 address, which is what one customer of a
network has at the least (RFC 6177); or, for a Unix socket, its path.

Success empties the bucket of its login and origin. It does not empty that of the origin: the owner
of one account could otherwise guess at all others for ever, signing in after every few guesses.

The tables are bounded, and forget first who has been quiet longest. To be forgotten early, an
attacker needs as many origins as there are entries, and each gets its failures back once.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Generic, TypeVar

from pyrope.clock import Clock
from pyrope.errors import WrongPassError

K = TypeVar("K")

_IPV6_NETWORK: Final = 64
_ADDRESSES: Final = 4096  # parsed once while their connections ask: parsing takes 10 us


class LockedOutError(WrongPassError):
    """Too many failures. Says when to come back, and nothing of whether the key was right.

    Attributes:
        retry_after_s: seconds from now until an attempt is looked at again; 1 at least.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"too many failed attempts from your address: retry in {retry_after_s} s")
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class LockoutPolicy:
    """How many failures are too many.

    Attributes:
        failures: of one login from one origin, at once.
        seconds: until one of them is forgotten.
        origin_failures, origin_seconds: of all logins from one origin, likewise. More: many people
            may share an address.
        entries: buckets kept, of each of the two kinds; about 250 bytes each.
    """

    failures: int = 10
    seconds: float = 10.0
    origin_failures: int = 100
    origin_seconds: float = 1.0
    entries: int = 20_000

    def __post_init__(self) -> None:
        if min(self.failures, self.origin_failures, self.entries) < 1:
            raise ValueError("a lock-out allows one failure, and keeps one entry, at the least")
        if not (0 < self.seconds < math.inf and 0 < self.origin_seconds < math.inf):
            raise ValueError("a lock-out takes a time above 0 to forget a failure")


class Lockout:
    """Refuses attempts after too many failures. Origins are those of `origin_of`.

    Args:
        clock: its monotonic side.

    Attributes:
        failures_total: attempts that failed.
        refused_total: attempts that were refused unseen.
    """

    def __init__(self, clock: Clock, policy: LockoutPolicy) -> None:
        self._monotonic = clock.monotonic
        self._logins: _Buckets[tuple[str, str]] = _Buckets(
            policy.failures, policy.seconds, policy.entries
        )
        self._origins: _Buckets[str] = _Buckets(
            policy.origin_failures, policy.origin_seconds, policy.entries
        )
        self.failures_total = 0
        self.refused_total = 0

    @property
    def entries_current(self) -> int:
        return len(self._logins) + len(self._origins)

    def check(self, login: str, origin: str) -> None:
        """Raises LockedOutError while an attempt of that login from there is to be refused."""
        now = self._monotonic()
        wait = max(self._logins.wait((login, origin), now), self._origins.wait(origin, now))
        if wait > 0:
            self.refused_total += 1
            raise LockedOutError(math.ceil(wait))

    def failed(self, login: str, origin: str) -> None:
        """Count a wrong key."""
        now = self._monotonic()
        self._logins.fill((login, origin), now)
        self._origins.fill(origin, now)
        self.failures_total += 1

    def succeeded(self, login: str, origin: str) -> None:
        """Forget the failures of a login from there."""
        self._logins.empty((login, origin))


class _Buckets(Generic[K]):
    """Leaky buckets by key, each as the monotonic time at which it will be empty."""

    __slots__ = ("_empty_at", "_entries", "_room", "_seconds")

    def __init__(self, failures: int, seconds: float, entries: int) -> None:
        self._seconds = seconds
        # With one more than this before it is empty, there is no room for another.
        self._room = (failures - 1) * seconds
        self._entries = entries
        self._empty_at: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._empty_at)

    def wait(self, key: K, now: float) -> float:
        """Seconds until there is room for one failure; 0 or less: there is."""
        empty_at = self._empty_at.get(key)
        return 0.0 if empty_at is None else empty_at - self._room - now

    def fill(self, key: K, now: float) -> None:
        self._empty_at[key] = max(self._empty_at.get(key, now), now) + self._seconds
        self._empty_at.move_to_end(key)
        if len(self._empty_at) > self._entries:
            self._empty_at.popitem(last=False)

    def empty(self, key: K) -> None:
        self._empty_at.pop(key, None)


@lru_cache(_ADDRESSES)
def origin_of(address: str) -> str:
    """Whom an address counts for. It may come with its port (``10.0.0.1:5000``, ``[::1]:5000``)."""
    for host in (address, address.rpartition(":")[0].strip("[]")):
        try:
            parsed = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            continue
        if isinstance(parsed, ipaddress.IPv4Address):
            return str(parsed)
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, _IPV6_NETWORK), strict=False))
    return address
