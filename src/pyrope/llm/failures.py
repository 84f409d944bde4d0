"""From what an API says of a failure to a `ProviderError`, without repeating its words.

An API's message may quote the prompt, or the key. So none of it goes into the text of an error,
but the status, and such codes as are listed here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from pyrope.llm.provider import Failure, ProviderError

MOST_RETRY_AFTER_S: Final = 86_400.0
"""Nobody is believed who wants to be left alone for longer than a day."""

_DELAY: Final = re.compile(r"\d{1,12}(\.\d{1,9})?")

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


def seconds_to_wait(headers: Mapping[str, str], now: float) -> float | None:
    """What ``Retry-After`` (RFC 9110, section 10.2.3) and ``retry-after-ms`` ask for.

    Args:
        headers: names in lower case, or a mapping that ignores case.
        now: Unix time in seconds, for a header that is a date.

    Returns:
        Seconds from 0 to `MOST_RETRY_AFTER_S`; None where neither is there and understood.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    if _DELAY.fullmatch(milliseconds):
        return bounded_wait(float(milliseconds) / 1000)
    text = headers.get("retry-after", "").strip()
    if _DELAY.fullmatch(text):
        return bounded_wait(float(text))
    try:
        # HTTP has no other zone than GMT; a date that names none would be taken for local time.
        date = parsedate_to_datetime(text)
        until = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return bounded_wait(until.timestamp() - now)
    except (ValueError, OverflowError):
        return None


def bounded_wait(seconds: float) -> float:
    """`seconds` as nobody regrets to have believed them; what is no number is 0."""
    if math.isnan(seconds):
        return 0.0
    return min(max(seconds, 0.0), MOST_RETRY_AFTER_S)
