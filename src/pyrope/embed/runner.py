"""How an embedder gets slow work off the event loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Run(Protocol):
    """Runs a function in a thread, and hands back what it returns or raises."""

    def __call__(self, function: Callable[..., T], /, *args: object) -> Awaitable[T]: ...
