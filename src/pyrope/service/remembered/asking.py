"""What is asked of remembered responses, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pyrope.semantic.remembered.entry import Entry
from pyrope.service.aliases import Aliases
from pyrope.types import IndexSpec


class Remembering(Protocol):
    """An index, as far as what it remembers needs it; its definition may change."""

    spec: IndexSpec
    aliases: Aliases


class Match(StrEnum):
    """How a prompt was found.

    EXACT: by its normal form. ALIAS: it is known to mean the same as another one. NEAR: by vectors.
    """

    EXACT = "exact"
    ALIAS = "alias"
    NEAR = "near"


@dataclass(frozen=True, slots=True)
class Rule:
    """When a near hit may be served: by its score, or by what is known of errors.

    Attributes:
        threshold: least cosine; None: `max_error` decides.
        max_error: most error to put up with, 0 to 1.
    """

    threshold: float | None
    max_error: float


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt that is looked up.

    Attributes:
        identity: its normal form, as of `pyrope.cache.query_key.QueryKey`.
        key: digest of it; see `pyrope.semantic.remembered.entry.prompt_key`.
        scope: canonical form.
        client: whose connection it came by.
        lease_s: for which a lease is wanted on a miss, in seconds; None: none is.
        may_hold: whether it may be given one, as who may remember what comes of it; otherwise it
            waits for others' only.
    """

    identity: bytes
    key: bytes
    prompt: bytes
    scope: bytes
    rule: Rule
    client: int
    lease_s: float | None = None
    may_hold: bool = True


@dataclass(slots=True)
class Nearest:
    """The nearest prompt that was not good enough.

    Attributes:
        error: what is known of the share of wrong answers at such hits, from above.
        refused_by: a guard, ``feedback`` (somebody has said that it is wrong), or None: the score
            or the error was not good enough.
    """

    entry: Entry
    score: float
    error: float
    refused_by: str | None


@dataclass(slots=True)
class Recalled:
    """What a lookup came to.

    Attributes:
        response: None: there is none.
        match: how it was found, also in shadow mode, where there is no response all the same.
        error: as of `Nearest`, of the entry that was found.
        nearest: where nothing was found.
        lease: token of the lease that was given.
        waited_s: for others' leases.
        saved_tokens, saved_cost: by the response.
    """

    rule: Rule
    response: bytes | None = None
    match: Match | None = None
    entry: Entry | None = None
    score: float = 1.0
    error: float = 0.0
    nearest: Nearest | None = None
    lease: bytes | None = None
    waited_s: float = 0.0
    shadow: bool = False
    saved_tokens: int = 0
    saved_cost: float = 0.0
