"""Methods of clients, out of the functions that make requests: their signatures stand once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from pyrope.client.request import Request

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Blocking(Protocol):
    """Who carries requests out while the caller waits."""

    def execute(self, request: Request[R], /) -> R:
        """Carry a request out, and return its result."""
        ...


class Awaiting(Protocol):
    """Who carries requests out in an event loop."""

    def execute(self, request: Request[R], /) -> Coroutine[Any, Any, R]:
        """As `Blocking.execute`."""
        ...


def blocking(build: Callable[P, Request[T]]) -> Callable[Concatenate[Blocking, P], T]:
    """A method that takes what `build` takes, and returns what its request results in."""

    def method(self: Blocking, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.execute(build(*args, **kwargs))

    _dress(method, build)
    return method


def awaiting(
    build: Callable[P, Request[T]],
) -> Callable[Concatenate[Awaiting, P], Coroutine[Any, Any, T]]:
    """As `blocking`, for an event loop. What is wrong with the arguments is raised at once."""

    def method(self: Awaiting, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        return self.execute(build(*args, **kwargs))

    _dress(method, build)
    return method


def _dress(method: Callable[..., Any], build: Callable[..., Any]) -> None:
    """Give a method the name, documentation and signature of the function behind it."""
    functools.update_wrapper(method, build)
    # `inspect` would take the first argument of what is behind it for the object.
    method.__dict__.pop("__wrapped__")
    signature = inspect.signature(build)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    # The annotations of this package are strings: of Request[X], the caller gets X.
    result = signature.return_annotation.removeprefix("Request[").removesuffix("]")
    method.__annotations__ = {**build.__annotations__, "return": result}
    method.__dict__["__signature__"] = signature.replace(
        parameters=[itself, *signature.parameters.values()], return_annotation=result
    )
