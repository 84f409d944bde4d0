"""When Python looks for cyclic garbage: not at everything while clients wait.

CPython's full collection visits every container there is, with the event loop stopped: 125 ms for
50,000 cached answers, again and again while a cache fills. What is cached has no cycles and goes by
its reference count. So what has survived a full collection is frozen (`gc.freeze`, which takes no
time), and the next one looks at what has come since: some thousand objects, in a few milliseconds.

What becomes cyclic garbage after it was frozen would stay for ever: an index that is dropped, a
connection that is closed. After such events everything is looked at once more, as soon as nobody
has asked for anything for a second; or after a minute, if somebody always does.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Literal

WORTH_A_LOOK = 1000
"""So many closed connections, which take some 10 KB each, are worth looking at everything."""

_IDLE_S = 1.0
_OVERDUE_S = 60.0
# Collections of the middle generation, of some 7,000 objects each, after which a full one follows.
_FULL_AFTER = 1


class GarbageCollection:
    """That of the process, between `start` and `stop`. For the event loop.

    Args:
        wasted: how much may have become garbage so far; see `WORTH_A_LOOK`.
    """

    def __init__(self, wasted: Callable[[], int]) -> None:
        self._wasted = wasted
        self._seen = 0
        self._wanted_since: float | None = None
        self._thresholds: tuple[int, int, int] | None = None

    def start(self) -> None:
        """Look at everything, and from then on at what comes."""
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*self._thresholds[:2], _FULL_AFTER)
        gc.callbacks.append(self._collected)
        gc.collect()

    def stop(self) -> None:
        """Leave the interpreter as it was. Idempotent."""
        if self._thresholds is None:
            return
        gc.callbacks.remove(self._collected)
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()
        self._thresholds = None

    def look(self, now: float, last_asked: float) -> bool:
        """Look at everything, if that is due; to be called every second or so.

        Args:
            now, last_asked: in seconds, of one clock; the latter is when a client has last asked
                for anything.

        Returns:
            Whether it was.
        """
        if self._wanted_since is None:
            if self._wasted() - self._seen < WORTH_A_LOOK:
                return False
            self._wanted_since = now
        if now - last_asked < _IDLE_S and now - self._wanted_since < _OVERDUE_S:
            return False
        self._seen = self._wasted()
        self._wanted_since = None
        gc.unfreeze()
        gc.collect()
        return True

    def _collected(self, phase: Literal["start", "stop"], info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 2:
            gc.freeze()
