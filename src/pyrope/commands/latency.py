"""Latency spikes over time, as LATENCY LATEST and HISTORY show them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# Redis keeps as many of each event.
_SAMPLES = 160


@dataclass(frozen=True, slots=True)
class Spike:
    """One slow moment: Unix time in seconds, and how long it took in milliseconds."""

    at: int
    milliseconds: int


class LatencyMonitor:
    """The latest spikes of each kind of event; of one second only the longest."""

    def __init__(self) -> None:
        self._spikes: dict[str, deque[Spike]] = {}
        self._longest: dict[str, int] = {}

    def record(self, event: str, *, at: float, seconds: float) -> None:
        """Note an event that took longer than the threshold."""
        spike = Spike(int(at), int(seconds * 1000))
        spikes = self._spikes.setdefault(event, deque(maxlen=_SAMPLES))
        self._longest[event] = max(spike.milliseconds, self._longest.get(event, 0))
        if spikes and spikes[-1].at == spike.at:
            if spikes[-1].milliseconds < spike.milliseconds:
                spikes[-1] = spike
        else:
            spikes.append(spike)

    def latest(self) -> list[tuple[str, Spike, int]]:
        """For each event its name, its latest spike, and its longest in milliseconds."""
        return [(event, spikes[-1], self._longest[event]) for event, spikes in self._spikes.items()]

    def history(self, event: str) -> list[Spike]:
        """The spikes of an event, oldest first."""
        return list(self._spikes.get(event, ()))

    def reset(self, events: list[str]) -> int:
        """Forget events, or all of them for an empty list. Returns how many there were."""
        names = [event for event in (events or list(self._spikes)) if event in self._spikes]
        for event in names:
            del self._spikes[event], self._longest[event]
        return len(names)
