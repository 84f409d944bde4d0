"""What is different about some calls, said around them: no integration's signature changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CallOptions:
    """As of `call_options`."""

    scope: Mapping[str, str] = field(default_factory=dict)
    depends_on: tuple[str, Sequence[str | bytes]] | None = None
    expires_s: int | None = None
    enabled: bool = True


VIA, REQUEST = "via", "request"
"""Fields of a scope that integrations fill in."""

_NONE = CallOptions()
_current: ContextVar[CallOptions] = ContextVar("pyrope_call_options", default=_NONE)


def current() -> CallOptions:
    """Those of the call that is being made."""
    return _current.get()


def check_scope(scope: Mapping[str, str]) -> None:
    """Raises ValueError where a scope has a field that integrations fill in."""
    if taken := scope.keys() & {VIA, REQUEST}:
        raise ValueError(f"the scope's field {min(taken)!r} is taken: integrations fill it in")


@contextmanager
def call_options(
    *,
    scope: Mapping[str, str] | None = None,
    depends_on: tuple[str, Sequence[str | bytes]] | None = None,
    expires_s: int | None = None,
    enabled: bool | None = None,
) -> Iterator[None]:
    """Options of the calls that are made inside, in this thread or task.

        with call_options(scope={"user": user}, depends_on=("handbook", hits.ids)):
            client.chat.completions.create(...)

    What is not given is as around it.

    Args:
        scope: fields that are added to the scope: who may be answered with the response.
        depends_on: an index and ids in it that the response is made from: when one of them
            changes, the response is forgotten.
        expires_s: how long the response lives.
        enabled: False: the model is asked, and nothing is remembered.

    Raises:
        ValueError: the scope has a field that integrations fill in.
    """
    check_scope(scope or {})
    outer = _current.get()
    token = _current.set(
        CallOptions(
            scope={**outer.scope, **(scope or {})},
            depends_on=outer.depends_on if depends_on is None else depends_on,
            expires_s=outer.expires_s if expires_s is None else expires_s,
            enabled=outer.enabled if enabled is None else enabled,
        )
    )
    try:
        yield
    finally:
        _current.reset(token)
