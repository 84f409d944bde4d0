"""From what an API says of a failure to a `ProviderError`, without repeating its words.

An API's message may quote the prompt, or the key. So none of it goes into the text of an error,
but the status, and such codes as are listed here.
"""

from __future__ import annotations

from typing import Final

from pyrope.llm.provider import Failure, ProviderError

_FAILURES: Final = {
    401: Failure.UNAUTHORISED,
    403: Failure.UNAUTHORISED,
    408: Failure.UNAVAILABLE,
    409: Failure.UNAVAILABLE,
    425: Failure.UNAVAILABLE,
    429: Failure.THROTTLED,
}
"""Statuses of HTTP that mean something else than the rest of their hundred."""

_CODES: Final = {
    # Of an account that has nothing left: no waiting helps, but what an operator does.
    "insufficient_quota": Failure.UNAUTHORISED,
    "billing_hard_limit_reached": Failure.UNAUTHORISED,
    # Gemini answers a wrong key with status 400.
    "API_KEY_INVALID": Failure.UNAUTHORISED,
    "API_KEY_EXPIRED": Failure.UNAUTHORISED,
    "content_filter": Failure.REFUSED,
    "content_policy_violation": Failure.REFUSED,
}
"""Codes that say more than the status they come with."""

_KNOWN: Final = frozenset(_CODES) | {
    # https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "OUT_OF_RANGE",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
    "UNIMPLEMENTED",
    "UNKNOWN",
    # https://platform.openai.com/docs/guides/error-codes
    "context_length_exceeded",
    "invalid_api_key",
    "invalid_request_error",
    "invalid_value",
    "model_not_found",
    "rate_limit_exceeded",
    "server_error",
    "unsupported_country_region_territory",
    "unsupported_parameter",
    "unsupported_value",
    # vLLM
    "AuthenticationError",
    "BadRequestError",
    "InternalServerError",
    "NotFoundError",
    # Ollama
    "api_error",
}
"""Codes that may be shown: none of them is a key, or what somebody asked."""


def status_error(
    who: str, status: int, codes: tuple[object, ...] = (), retry_after_s: float | None = None
) -> ProviderError:
    """The error for a reply that is not 200.

    Args:
        who: the provider, in words for operators.
        codes: what the API calls it, the most telling first; unknown ones are ignored.
    """
    known = [code for code in codes if isinstance(code, str) and code in _KNOWN]
    failure = next((_CODES[code] for code in known if code in _CODES), None)
    if failure is None:
        failure = _FAILURES.get(status)
    if failure is None:
        failure = Failure.INVALID if 300 <= status < 500 else Failure.UNAVAILABLE
    said = f" ({known[0]})" if known else ""
    return ProviderError(failure, f"{who} answered {status}{said}", retry_after_s=retry_after_s)
