"""Who has a turn: by the thread or task that has asked, and by what that has started since.

The former is known of every turn. The latter only of those that end with a block of the caller's
code (`turn_of_the_context`): of a turn whose caller may not come back, what it starts afterwards
knows nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import WeakKeyDictionary


class Held(Protocol):
    """A turn."""

    is_over: bool


_lock = threading.Lock()
_by_caller: WeakKeyDictionary[Any, list[Held]] = WeakKeyDictionary()
_of_the_context: ContextVar[tuple[Held, ...]] = ContextVar("pyrope_turns", default=())


def has_turn() -> bool:
    """Whether the caller has a turn, or somebody for whom it works."""
    who = caller()
    with _lock:
        held = tuple(_by_caller.get(who, ()))
    return any(not turn.is_over for turn in held + _of_the_context.get())


def take(turn: Held) -> None:
    """A turn is the caller's now."""
    who = caller()
    with _lock:
        held = [each for each in _by_caller.get(who, ()) if not each.is_over]
        _by_caller[who] = [*held, turn]


@contextmanager
def turn_of_the_context(turn: Held) -> Iterator[None]:
    """Whatever is started inside knows of the turn, too."""
    token = _of_the_context.set((*_of_the_context.get(), turn))
    try:
        yield
    finally:
        _of_the_context.reset(token)


def caller() -> Any:
    """The task, or the thread outside of event loops."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.current_thread() if task is None else task
