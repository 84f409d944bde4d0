"""Turns of callers that come back with an answer and without their turn."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from pyrope.integrations.desk import Turn


class OpenTurns:
    """By what a caller has in hand both times. For any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: OrderedDict[Hashable, Turn[Any]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._turns)

    def put(self, name: Hashable, turn: Turn[Any]) -> None:
        """Keep a turn, if it is one. Those of callers that did not come back are dropped."""
        with self._lock:
            # The desk ends them in this order.
            while self._turns and next(iter(self._turns.values())).is_over:
                self._turns.popitem(last=False)
            if not turn.is_over:
                self._turns[name] = turn

    def take(self, name: Hashable) -> Turn[Any] | None:
        """The turn of that name, which is gone from here; None: there is none."""
        with self._lock:
            return self._turns.pop(name, None)
