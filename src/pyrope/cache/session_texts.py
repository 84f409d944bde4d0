"""The last texts of each session, in order, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict

from pyrope.cache.asked_texts import ByteBudget
from pyrope.cache.query_key import QueryKey

# Of a session, and of a text in it, beside their bytes (CPython 3.11).
_SESSION_BYTES, _TEXT_BYTES = 250, 160


class SessionTexts:
    """For the event loop; each call is O(1).

    Past a bound the session goes that was used the longest time ago.

    Args:
        max_sessions: at least 1.
        max_texts: of each session, at least 1.
        budget: shared with other tables.
    """

    def __init__(self, *, max_sessions: int, max_texts: int, budget: ByteBudget) -> None:
        self._max_sessions = max_sessions
        self._max_texts = max_texts
        self._budget = budget
        self._sessions: OrderedDict[bytes, tuple[QueryKey, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def follow(self, session: bytes, text: QueryKey) -> tuple[QueryKey, ...]:
        """Take note of a text. Returns the last ones of its session, this one at the end.

        A text that comes again at once counts once.
        """
        before = self._sessions.pop(session, None)
        texts = before or ()
        if before is not None:
            self._budget.give_back(_bytes_of(session, before))
        if not texts or texts[-1].identity != text.identity:
            texts = (*texts, text)[-self._max_texts :]
        while len(self._sessions) >= self._max_sessions or not self._budget.take(
            _bytes_of(session, texts)
        ):
            if not self._sessions:
                return texts
            self._give_back(*self._sessions.popitem(last=False))
        self._sessions[session] = texts
        return texts

    def clear(self) -> None:
        while self._sessions:
            self._give_back(*self._sessions.popitem())

    def _give_back(self, session: bytes, texts: tuple[QueryKey, ...]) -> None:
        self._budget.give_back(_bytes_of(session, texts))


def _bytes_of(session: bytes, texts: tuple[QueryKey, ...]) -> int:
    return (
        _SESSION_BYTES
        + len(session)
        + sum([_TEXT_BYTES + len(one.identity) + len(one.content) for one in texts])
    )
