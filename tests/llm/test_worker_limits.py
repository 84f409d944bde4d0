from __future__ import annotations

import math

import pytest

from pyrope.config import LlmSettings
from pyrope.llm.worker_limits import WorkerLimits


def test_they_are_those_of_the_settings() -> None:
    limits = WorkerLimits.of(
        LlmSettings(
            max_queued=7,
            max_queue_bytes=1 << 20,
            concurrency=3,
            requests_per_minute=11,
            tokens_per_minute=12,
            thinking_tokens=13,
            max_attempts=5,
            backoff_base_s=2,
            backoff_max_s=3,
            breaker_failures=4,
            breaker_probe_s=9,
            timeout_s=20,
            grace_s=0.5,
        )
    )
    assert limits == WorkerLimits(
        max_queued=7,
        max_queue_bytes=1 << 20,
        concurrency=3,
        requests_per_minute=11,
        tokens_per_minute=12,
        thinking_tokens=13,
        max_attempts=5,
        backoff_base_s=2.0,
        backoff_max_s=3.0,
        breaker_failures=4,
        breaker_probe_s=9.0,
        breaker_max_probe_s=288.0,
        call_s=25.0,
        grace_s=0.5,
    )


def test_by_default_a_stop_takes_less_than_two_seconds() -> None:
    assert WorkerLimits.of(LlmSettings()).grace_s <= WorkerLimits().grace_s == 1.0


@pytest.mark.parametrize(
    "changed",
    [
        {"max_queued": 0},
        {"concurrency": 0},
        {"max_attempts": 0},
        {"call_s": 0.0},
        {"call_s": math.nan},
        {"grace_s": -1.0},
    ],
)
def test_impossible_ones_are_refused(changed: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"a worker needs|no call can end"):
        WorkerLimits(**changed)  # type: ignore[arg-type] # as the parameters say
