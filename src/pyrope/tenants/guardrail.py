"""Whose searches are cut short when the server misses its latency target, and by how much.

The guardrail stands on one rung of a ladder. From the ground up: nothing is done; then for tenants
of LOW priority, then NORMAL, then HIGH, in turn: their searches make less effort, down to a floor;
only caches answer them; they are refused. A priority is never treated worse than a lower one, as
every rung leaves in force what the rungs below it do.

Rules:
- *Up* while the percentile measured exceeds the target. Effort falls smoothly, in `step_seconds` to
  its floor where the target is missed by as much again, more slowly where by less. Each other rung,
  and the floor, is given `step_seconds` to show an effect before the next one.
- *Down* when the percentile has been below `recovery_share` of the target for `recovery_seconds`
  without a break, and so long again for each rung. Effort rises smoothly.
- *Neither* in between: what is measured there confirms the rung.
- Too few samples never lead up. They count as calm, as otherwise a server that refuses everybody
  would have nothing to recover by.
- Priorities from which nobody has asked of late are passed over on the way up: nothing would come
  of the wait.

That thresholds differ by direction, and the least time on a rung, keep it from flapping (as with
the thermostat's hysteresis); the ladder is the load shedding by criticality of Beyer et al., "Site
Reliability Engineering", 2016, chapter 21.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyrope.tenants.limits import Priority

_LADDER = (Priority.LOW, Priority.NORMAL, Priority.HIGH)
# Rungs of each priority.
_DEGRADED, _CACHE_ONLY, _SHED = range(3)
_RUNGS = 3
_TOP = _RUNGS * len(_LADDER) - 1
_GROUND = -1
# However late an evaluation is, it moves effort by no more than one that is so late.
_LONGEST_STEP_SECONDS = 1.0
# A target that is hardly missed lowers effort at this share of full speed.
_LEAST_SPEED = 0.2


@dataclass(frozen=True, slots=True)
class GuardrailOptions:
    """How the guardrail moves.

    Attributes:
        least_effort: the share of its effort that a degraded search keeps, above 0.
        step_seconds: for effort to fall to that, and for each rung to show an effect: the window
            in which latency is measured, at least, or the next rung is taken on old news.
        recovery_seconds: of calm, before each way down.
        recovery_share: of the target: below it there is calm.
        min_samples: with fewer, the percentile says nothing.
    """

    least_effort: float = 0.25
    step_seconds: float = 5.0
    recovery_seconds: float = 10.0
    recovery_share: float = 0.8
    min_samples: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.least_effort <= 1:
            raise ValueError(f"least_effort is a share above 0: {self.least_effort}")
        if not (self.step_seconds > 0 and self.recovery_seconds > 0):
            raise ValueError("a rung of the guardrail lasts longer than no time at all")
        if not 0 < self.recovery_share < 1:
            raise ValueError(f"recovery_share is a share below 1: {self.recovery_share}")


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a search.

    Attributes:
        effort_share: of the effort that it would make, 0-1; 1: all of it.
        cache_only: it is not made, unless a cache answers it.
        shed: it is refused.
    """

    effort_share: float = 1.0
    cache_only: bool = False
    shed: bool = False


_FREE = Decision()


@dataclass(frozen=True, slots=True)
class GuardrailStatistics:
    """A snapshot.

    Attributes:
        decisions: in force now, by priority.
        rungs_up_total, rungs_down_total: steps taken since the start, changes of effort aside.
    """

    decisions: dict[Priority, Decision]
    rungs_up_total: int
    rungs_down_total: int


class Guardrail:
    """State of one server's guardrail. Times are of the monotonic clock, in seconds."""

    def __init__(self, options: GuardrailOptions | None = None) -> None:
        self._options = options or GuardrailOptions()
        self._rung = _GROUND
        # How far effort has fallen on the way to its floor, 0-1, on a rung that degrades.
        self._depth = 0.0
        self._evaluated_at: float | None = None
        # When this rung was reached, or the floor on it.
        self._reached_at = float("-inf")
        self._calm_since: float | None = None
        self._asked: set[Priority] = set()
        self._asked_at = dict.fromkeys(_LADDER, float("-inf"))
        self._decisions = dict.fromkeys(_LADDER, _FREE)
        self._ups = self._downs = 0

    @property
    def is_active(self) -> bool:
        """Whether anybody's searches are affected."""
        return self._rung != _GROUND

    def decision(self, priority: Priority) -> Decision:
        """What becomes of a search of a tenant of this priority; called once for each."""
        self._asked.add(priority)
        return self._decisions[priority]

    def statistics(self) -> GuardrailStatistics:
        return GuardrailStatistics(dict(self._decisions), self._ups, self._downs)

    def evaluate(self, now: float, *, target_ms: float, p99_ms: float, samples: int) -> None:
        """Move, if it is time to. To be called several times a second.

        Args:
            target_ms: for the 99th percentile of latency; 0: there is none, and nothing is done.
            p99_ms: as measured, of `samples` requests that were not refused.
        """
        for priority in self._asked:
            self._asked_at[priority] = now
        self._asked.clear()
        before = now if self._evaluated_at is None else self._evaluated_at
        passed = min(max(now - before, 0.0), _LONGEST_STEP_SECONDS)
        self._evaluated_at = now
        if target_ms <= 0:
            if self._rung != _GROUND:
                self._move(_GROUND, 0.0, now)
            self._calm_since = None
        elif samples >= self._options.min_samples and p99_ms > target_ms:
            self._calm_since = None
            self._up(now, passed, p99_ms / target_ms - 1)
        elif (
            samples < self._options.min_samples or p99_ms < self._options.recovery_share * target_ms
        ):
            if self._calm_since is None:
                self._calm_since = now
            if now - self._calm_since >= self._options.recovery_seconds:
                self._down(now, passed)
        else:
            self._calm_since = None

    def _up(self, now: float, passed: float, missed_by: float) -> None:
        """The target is missed, by that share of it."""
        if self._degrades and self._depth < 1:
            speed = min(max(missed_by, _LEAST_SPEED), 1.0)
            depth = min(self._depth + speed * passed / self._options.step_seconds, 1.0)
            self._move(self._rung, depth, now if depth == 1 else self._reached_at)
        elif now - self._reached_at >= self._options.step_seconds:
            rung = self._next(now)
            if rung is not None:
                self._ups += 1
                self._move(rung, 0.0, now)

    def _next(self, now: float) -> int | None:
        """The next rung up that somebody would notice; None: there is none."""
        rung = self._rung + 1
        while rung <= _TOP:
            if now - self._asked_at[_LADDER[rung // _RUNGS]] < 2 * self._options.step_seconds:
                return rung
            # None of this priority's.
            rung = (rung // _RUNGS + 1) * _RUNGS
        return None

    def _down(self, now: float, passed: float) -> None:
        """It has been calm for long enough."""
        if self._rung == _GROUND:
            return
        if self._degrades and self._depth > 0:
            depth = max(self._depth - passed / self._options.recovery_seconds, 0.0)
            self._move(self._rung, depth, self._reached_at)
            if depth:
                return
        elif now - self._reached_at < self._options.recovery_seconds:
            return
        self._downs += 1
        self._move(self._rung - 1, 1.0, now)
        # So long again before the next way down.
        self._calm_since = now

    @property
    def _degrades(self) -> bool:
        return self._rung != _GROUND and self._rung % _RUNGS == _DEGRADED

    def _move(self, rung: int, depth: float, reached_at: float) -> None:
        self._rung, self._depth, self._reached_at = rung, depth, reached_at
        for number, priority in enumerate(_LADDER):
            self._decisions[priority] = self._decided(rung - number * _RUNGS)

    def _decided(self, own: int) -> Decision:
        """For a priority whose first rung is `own` rungs below this one."""
        if own < _DEGRADED:
            return _FREE
        depth = self._depth if own == _DEGRADED else 1.0
        effort = 1 - depth * (1 - self._options.least_effort)
        return Decision(effort, own >= _CACHE_ONLY, own >= _SHED)
