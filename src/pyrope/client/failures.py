"""What redis-py raises as the errors of the wire, and when the same may be tried again."""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import ConnectionError as ConnectionFailure
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as TimeoutFailure

from pyrope.client.request import Request
from pyrope.errors import (
    BudgetError,
    BusyError,
    CommandError,
    DeniedError,
    DimensionError,
    ExistsError,
    LoadingError,
    MisconfError,
    NoAuthError,
    NoIndexError,
    NoPermError,
    NoProtoError,
    OutOfMemoryError,
    PyropeError,
    QuotaError,
    WrongPassError,
)

UNREACHED = (RedisError,)
"""What calls raise when the server cannot be reached, or does not answer."""

REFUSED = (PyropeError,)
"""What they raise when the server refuses."""

_BY_PREFIX: Final[dict[str, type[PyropeError]]] = {
    kind.prefix: kind
    for kind in (
        BudgetError,
        BusyError,
        CommandError,
        DeniedError,
        DimensionError,
        ExistsError,
        LoadingError,
        MisconfError,
        NoAuthError,
        NoIndexError,
        NoPermError,
        NoProtoError,
        OutOfMemoryError,
        WrongPassError,
    )
}
_WAIT = re.compile(r"(?:retry in|retry with backoff after) ([0-9.e+-]{1,32}) (ms|s)\b")
_TURN = "retry when one has been answered"
_IN_SECONDS: Final = {"ms": 1e-3, "s": 1.0}


def typed(error: RedisError) -> PyropeError | RedisError:
    """The error of `pyrope.errors` that the server's answer stands for.

    What is no answer of the server (a connection that failed, a timeout) stays as it is.
    """
    # redis-py takes off the prefixes that it knows, and says in `status_code` which it was.
    prefix: str | None = getattr(error, "status_code", None)
    message = str(error)
    if prefix is None:
        if not isinstance(error, ResponseError):
            return error
        prefix, _, message = message.partition(" ")
        if prefix != QuotaError.prefix and prefix not in _BY_PREFIX:
            return PyropeError(str(error))
    elif isinstance(error, ConnectionFailure) and prefix == CommandError.prefix:
        return error  # Too many connections: redis-py takes it for one that failed, and so it is.
    if prefix == QuotaError.prefix:
        return QuotaError(message, retry_after_s=hint_s(message))
    kind = _BY_PREFIX.get(prefix)
    return PyropeError(f"{prefix} {message}") if kind is None else kind(message)


def hint_s(message: str) -> float | None:
    """Seconds after which the server says that another try is of use; None: it does not say."""
    if _TURN in message:
        return 0.0
    found = _WAIT.search(message)
    if found is None:
        return None
    try:
        return float(found[1]) * _IN_SECONDS[found[2]]
    except ValueError:
        return None


def least_wait_s(request: Request[object], error: PyropeError | RedisError) -> float | None:
    """Seconds before which a request is not to be sent again; None: it is not to be at all.

    A refusal by QUOTA, BUSY or LOADING has changed nothing, so that everything may be sent again.
    When a connection fails, nobody knows whether the request was carried out.
    """
    if isinstance(error, QuotaError):
        return error.retry_after_s
    if isinstance(error, BusyError):
        return (hint_s(error.message) or 0.0) if request.retries_busy else None
    if isinstance(error, LoadingError):
        return 0.0
    if isinstance(error, (ConnectionFailure, TimeoutFailure)):
        return 0.0 if request.repeatable else None
    return None
