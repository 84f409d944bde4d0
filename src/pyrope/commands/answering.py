"""How the query was answered that was answered last: what the slow log and traces tell of it."""

from __future__ import annotations

from typing import NamedTuple

Record = tuple[list[bytes] | None, str, str, float, float, float, float]
"""The fields of an `Answering` but for the last: a plain tuple takes a quarter of the time, and
hardly any is ever looked at. It holds numbers and names only, so that whoever keeps it keeps no
index, and no answer, from going."""


class Answering(NamedTuple):
    """How a query was answered.

    Attributes:
        args: of the command; None where it is no command's.
        index_name: that was searched.
        level: where the answer came from, as WITHINFO tells it.
        queue_seconds, search_seconds: as of `pyrope.service.search.Hits`.
        received_at, at: monotonic times in seconds of the command and of its answer.
        request_id: as its reply has told it; empty where it has not.
    """

    args: list[bytes] | None
    index_name: str
    level: str
    queue_seconds: float
    search_seconds: float
    received_at: float
    at: float
    request_id: str

    def parts(self) -> dict[str, str | int]:
        """The microseconds add up to those until it was answered.

        `cache_us`: all but waiting for a batch, and being in one: looking up, catching up with
        writes, waiting for one that has asked the same.
        """
        searched = self.queue_seconds + self.search_seconds
        return {
            "index": self.index_name,
            "cache": self.level,
            "cache_us": _microseconds(self.at - self.received_at - searched),
            "queue_us": _microseconds(self.queue_seconds),
            "search_us": _microseconds(self.search_seconds),
        }


def _microseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e6))
