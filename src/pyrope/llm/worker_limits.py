"""What the worker keeps within."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pyrope.config import LlmSettings

# The adapters keep to the timeout of the settings themselves, and say more about it.
_CALL_SLACK_S = 5.0

# Pauses of the breaker double up to so many times the first one.
_PROBE_GROWTH = 32.0


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """Limits of a worker; most are checked by the parts that keep them.

    Attributes:
        max_queued: jobs that may wait, at least 1.
        max_queue_bytes: that they may take.
        concurrency: calls at a time, at least 1.
        requests_per_minute, tokens_per_minute: 0: no limit.
        thinking_tokens: that a reply may take beyond what its prompt says.
        max_attempts: calls for one job, at least 1; the repair of a reply is one.
        backoff_base_s, backoff_max_s: see `pyrope.llm.backoff`.
        breaker_failures, breaker_probe_s, breaker_max_probe_s: see `pyrope.llm.breaker`.
        call_s: after which a call has failed, whatever the provider says.
        grace_s: for calls under way when the worker is stopped.
        max_reply_bytes: longer replies are not read.
    """

    max_queued: int = 10_000
    max_queue_bytes: int = 16 << 20
    concurrency: int = 2
    requests_per_minute: int = 60
    tokens_per_minute: int = 100_000
    thinking_tokens: int = 0
    max_attempts: int = 4
    backoff_base_s: float = 1.0
    backoff_max_s: float = 60.0
    breaker_failures: int = 5
    breaker_probe_s: float = 30.0
    breaker_max_probe_s: float = 30.0 * _PROBE_GROWTH
    call_s: float = 30.0 + _CALL_SLACK_S
    grace_s: float = 1.0
    max_reply_bytes: int = 64 << 10

    def __post_init__(self) -> None:
        if min(self.max_queued, self.concurrency, self.max_attempts) < 1:
            raise ValueError("a worker needs room for a job, a call at a time, and an attempt")
        if not (self.call_s > 0.0 <= self.grace_s):
            raise ValueError(f"no call can end within {self.call_s} s, or {self.grace_s} s")

    @classmethod
    def of(cls, settings: LlmSettings) -> Self:
        """Those that the settings name."""
        return cls(
            max_queued=settings.max_queued,
            max_queue_bytes=settings.max_queue_bytes,
            concurrency=settings.concurrency,
            requests_per_minute=settings.requests_per_minute,
            tokens_per_minute=settings.tokens_per_minute,
            thinking_tokens=settings.thinking_tokens,
            max_attempts=settings.max_attempts,
            backoff_base_s=settings.backoff_base_s,
            backoff_max_s=settings.backoff_max_s,
            breaker_failures=settings.breaker_failures,
            breaker_probe_s=settings.breaker_probe_s,
            breaker_max_probe_s=settings.breaker_probe_s * _PROBE_GROWTH,
            call_s=settings.timeout_s + _CALL_SLACK_S,
            grace_s=settings.grace_s,
        )
