"""Errors as problem details (RFC 9457), with the wire's prefix as `code`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.requests import Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from pyrope.errors import PyropeError, QuotaError
from pyrope.tenants.changes import UnknownTenantError
from pyrope.tenants.lockout import LockedOutError

MEDIA_TYPE = "application/problem+json"

# Mistakes that one answer names.
_NAMED_MISTAKES = 20

_STATUS = {
    "ERR": 400,
    "DIM": 400,
    "NOAUTH": 401,
    "WRONGPASS": 401,
    "BUDGET": 402,
    "NOPERM": 403,
    "DENIED": 403,
    "NOINDEX": 404,
    "EXISTS": 409,
    "QUOTA": 429,
    "BUSY": 503,
    "LOADING": 503,
    "MISCONF": 503,
    "OOM": 507,
}
"""By the prefix of an error."""


class PreconditionFailedError(PyropeError):
    """What is to be changed is not what the client knows."""


class BadRequestError(PyropeError):
    """A request that no command would be.

    Args:
        status: of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TooManyRequestsError(PyropeError):
    """An address asks more often than `http.requests_per_s` lets it.

    Args:
        retry_after_s: seconds from now after which it may ask again.
    """

    prefix = "BUSY"

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("too many requests from your address; see http.requests_per_s")
        self.retry_after_s = retry_after_s


def status_of(error: PyropeError) -> int:
    """The status of HTTP that an error is."""
    if isinstance(error, PreconditionFailedError):
        return 412
    if isinstance(error, BadRequestError):
        return error.status
    if isinstance(error, LockedOutError | TooManyRequestsError):
        return 429
    if isinstance(error, UnknownTenantError):
        return 404
    return _STATUS.get(error.prefix, 500) if type(error) is not PyropeError else 500


def _headers_of(error: PyropeError, status: int) -> dict[str, str]:
    if status == 401:
        return {"WWW-Authenticate": 'Basic realm="pyrope", charset="UTF-8"'}
    if isinstance(error, QuotaError | LockedOutError | TooManyRequestsError):
        wait = error.retry_after_s
        return {} if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}
    return {"Retry-After": "1"} if error.prefix in {"BUSY", "LOADING"} else {}


def problem_body(
    status: int,
    code: str,
    detail: str,
    request_id: str | None = None,
    errors: Sequence[Mapping[str, str]] = (),
) -> bytes:
    """A problem as JSON."""
    problem: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if request_id is not None:
        problem["request_id"] = request_id
    if errors:
        problem["errors"] = list(errors)
    return json.dumps(problem).encode()


def problem(
    request_id: str | None,
    status: int,
    code: str,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: Sequence[Mapping[str, str]] = (),
) -> Response:
    """The response that tells of a problem."""
    body = problem_body(status, code, detail, request_id, errors)
    return Response(body, status, headers, MEDIA_TYPE)


def problem_of(error: PyropeError, request_id: str | None) -> Response:
    """What a client is told of an error."""
    status = status_of(error)
    headers = _headers_of(error, status)
    return problem(request_id, status, error.prefix, error.message, headers=headers)


def _id_of(request: Request) -> str | None:
    found: str | None = request.scope.get("pyrope.request_id")
    return found


async def refused(request: Request, error: Exception) -> Response:
    """Handler of `PyropeError`."""
    assert isinstance(error, PyropeError)  # noqa: S101 - it is registered for those
    request.app.state.gate.server.counters.count_error(error.prefix)
    return problem_of(error, _id_of(request))


async def misread(request: Request, error: Exception) -> Response:
    """Handler of `RequestValidationError`: says where and what, and repeats nothing."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    mistakes = [
        {"at": ".".join(str(part) for part in one["loc"])[:200], "problem": str(one["msg"])[:500]}
        for one in error.errors()[:_NAMED_MISTAKES]
    ]
    detail = "; ".join(f"{one['at']}: {one['problem']}" for one in mistakes[:3])
    return problem(_id_of(request), 422, "ERR", detail, errors=mistakes)


async def unroutable(request: Request, error: Exception) -> Response:
    """Handler of `HTTPException`: there is no such path or method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    return problem(
        _id_of(request), error.status_code, "ERR", str(error.detail), headers=error.headers
    )


async def failed(request: Request, error: Exception) -> Response:
    """Handler of everything else, which is a bug: the log has it."""
    detail = f"internal error ({type(error).__name__}); see the log"
    return problem(_id_of(request), 500, "ERR", detail)
