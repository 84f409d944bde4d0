"""VECTOR.LLM: the language model that advises the caches; for the administrator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyrope.client.replies import fields, nothing, plain, rest
from pyrope.client.request import Request
from pyrope.client.results import LlmStatus


def status() -> Request[LlmStatus]:
    """What the worker that asks it does and has done, for all tenants. Raises NoPermError."""
    return Request(("VECTOR.LLM", "STATUS"), _status)


def pause() -> Request[None]:
    """Stop asking; questions wait. Raises NoPermError, CommandError (there is none to ask)."""
    return Request(("VECTOR.LLM", "PAUSE"), nothing)


def resume() -> Request[None]:
    """Ask again. Raises NoPermError, CommandError (there is none to ask)."""
    return Request(("VECTOR.LLM", "RESUME"), nothing)


def jobs(count: int | None = None) -> Request[list[dict[str, Any]]]:
    """Questions that wait or are being asked; None: at most 20. Raises NoPermError."""
    return Request(("VECTOR.LLM", "JOBS", *(() if count is None else (count,))), plain)


def _status(reply: Mapping[bytes, Any]) -> LlmStatus:
    told = fields(reply)
    take = told.pop
    return LlmStatus(
        enabled=bool(take("enabled")),
        **{name: plain(take(name)) for name in _FIELDS},
        more=rest(told),
    )


_FIELDS = (
    "provider", "model", "state", "queued", "running", "succeeded", "failed", "retried", "dropped",
    "rate_limited", "budget_dropped", "tokens_in", "tokens_out", "cost", "last_error",
)  # fmt: skip
