"""The server's latency target: what is measured, and whose searches are cut short for it."""

from __future__ import annotations

from pyrope.clock import Clock
from pyrope.config import GuardrailSettings
from pyrope.errors import BusyError
from pyrope.log import get_logger
from pyrope.tenants.guardrail import Decision, Guardrail, GuardrailOptions, GuardrailStatistics
from pyrope.tenants.latency_window import LatencyWindow
from pyrope.tenants.limits import Priority

_log = get_logger(__name__)

_SHARE = 0.99
_FREE = Decision()


class LatencyGuard:
    """For the event loop.

    Attributes:
        is_on: whether there is a target.
        refused_total: searches that were refused; not those that the caches were to answer and
            could not.
    """

    def __init__(self, settings: GuardrailSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._window = LatencyWindow(clock, settings.window_s)
        self._guardrail = Guardrail(
            GuardrailOptions(
                least_effort=settings.least_effort,
                # On older news than the window's no rung is taken.
                step_seconds=settings.window_s,
                recovery_seconds=settings.recovery_s,
            )
        )
        self.is_on = settings.target_p99_ms > 0
        self.refused_total = 0

    def decide(self, priority: Priority) -> Decision:
        """What becomes of a search. Raises BusyError where it is refused."""
        if not self.is_on:
            return _FREE
        decision = self._guardrail.decision(priority)
        if decision.shed:
            self.refused_total += 1
            raise BusyError(
                "the server misses its latency target, and searches of this priority are refused; "
                "retry with backoff"
            )
        return decision

    def answered(self, received_at: float) -> None:
        """A search that came in then, on the monotonic clock, is answered now."""
        self._window.record(self._clock.monotonic() - received_at)

    def evaluate(self) -> None:
        """Move, if it is time to; to be called several times a second."""
        target_ms = self._settings.target_p99_ms
        self.is_on = target_ms > 0
        was_active = self._guardrail.is_active
        if not self.is_on and not was_active:
            return
        p99_ms = self.p99_ms
        self._guardrail.evaluate(
            self._clock.monotonic(),
            target_ms=target_ms,
            p99_ms=p99_ms,
            samples=self._window.count,
        )
        if self._guardrail.is_active != was_active:
            _log.warning(
                "searches are cut short" if not was_active else "searches are as asked for again",
                p99_ms=round(p99_ms, 3),
                target_ms=target_ms,
            )

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of the last while; 0 without searches."""
        return self._window.percentile(_SHARE) * 1000

    def statistics(self) -> GuardrailStatistics:
        return self._guardrail.statistics()
