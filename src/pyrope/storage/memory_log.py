"""The chained log of a server without a data directory: its last entries, in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice
from threading import Lock

from pyrope.storage.chained_entry import EMPTY, Head, LogEntry, decode_entry, timestamp
from pyrope.storage.chained_files import check_page
from pyrope.storage.chained_log import encode_entries


class MemoryLog:
    """A `pyrope.storage.chained_log.EntryLog` that ends with its process.

    Args:
        max_entries: kept; older ones are forgotten.
    """

    def __init__(self, max_entries: int) -> None:
        # Their lines: a fifth of what the entries would take.
        self._lines: deque[bytes] = deque(maxlen=max_entries)
        self._head = EMPTY
        self._mutex = Lock()
        self._is_closed = False

    @property
    def head(self) -> Head:
        return self._head

    def append(self, payloads: Sequence[Mapping[str, object]], at: float) -> Head:
        moment = timestamp(at)
        with self._mutex:
            if self._is_closed:
                raise RuntimeError("the log is closed")
            data, self._head = encode_entries(payloads, moment, self._head)
            self._lines.extend(data.splitlines())
            return self._head

    def read(self, after_seq: int, limit: int) -> list[LogEntry]:
        check_page(after_seq, limit)
        with self._mutex:
            forgotten = self._head.seq - len(self._lines)
            start = max(0, after_seq - forgotten)
            lines = list(islice(self._lines, start, start + limit))
        return [decode_entry(line) for line in lines]

    def read_newest(self, before_seq: int | None, limit: int) -> list[LogEntry]:
        check_page(before_seq or 0, limit)
        with self._mutex:
            newer = 0 if before_seq is None else max(0, self._head.seq + 1 - before_seq)
            lines = list(islice(reversed(self._lines), newer, newer + limit))
        return [decode_entry(line) for line in lines]

    def close(self) -> None:
        self._is_closed = True
