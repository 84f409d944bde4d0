"""How a model's responses are remembered and recalled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pyrope.integrations.calls import check_scope


@dataclass(frozen=True, slots=True)
class Spent:
    """What a response took, as the provider counts it.

    Attributes:
        model: that gave it; empty: it is not known.
    """

    model: str
    tokens_in: int
    tokens_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RememberOptions:
    """Options of a `ResponseCache`.

    Attributes:
        threshold: answer with what was said to a prompt whose cosine is so much at least; or
        max_error: where so large a share of such answers is wrong, at most; neither: as the index
            has it.
        scope: fields of every scope, such as the version of the application's prompts.
        expires_s: how long a response lives; None: as the index has it.
        lease_s: how long one caller may ask the model while others who want the same wait for what
            it says, in seconds; 0: nobody waits for anybody. At most what the server allows
            (``remember.lease_max_ms``).
        leases: connections that are there for those who ask or wait. One more caller neither has a
            lease nor waits.
        timeout_s: wait so long for the server, and for a connection to it.
        pause_s: after a connection has failed, the server is left alone for so long.
        cost: what a response has cost, in cost units; None: the server's own estimate.

    Raises:
        ValueError: a number is out of range.
    """

    threshold: float | None = None
    max_error: float | None = None
    scope: Mapping[str, str] = field(default_factory=dict)
    expires_s: int | None = None
    lease_s: float = 30.0
    leases: int = 64
    timeout_s: float = 2.0
    pause_s: float = 5.0
    cost: Callable[[Spent], float] | None = None

    def __post_init__(self) -> None:
        check_scope(self.scope)
        if self.threshold is not None and self.max_error is not None:
            raise ValueError("a threshold or a max_error is expected, not both")
        if self.threshold is not None and not -1 <= self.threshold <= 1:
            raise ValueError("a threshold is a cosine, from -1 to 1")
        if self.max_error is not None and not 0 <= self.max_error <= 1:
            raise ValueError("max_error is a share, from 0 to 1")
        if self.lease_s < 0 or self.pause_s < 0 or self.timeout_s <= 0 or self.leases < 0:
            raise ValueError("times and numbers are not negative, and timeout_s is more than 0")
        if self.expires_s is not None and self.expires_s < 1:
            raise ValueError("expires_s is 1 at least, or None")
