"""What is sent and how the answer is read, apart from any connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pyrope.client.words import Word

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Request(Generic[T_co]):
    """One command.

    Attributes:
        words: its name and arguments. Not shown: there may be a key among them.
        parse: makes the result out of a reply (RESP3, bytes not decoded).
        repeatable: whether doing it twice is as good as once, so that it may be sent again although
            nobody knows what has become of the first one. A read is; of the writes, one that says
            what is to be and not what is to change. The answer is that of the last time.
        retries_busy: False where BUSY is an answer, and not a matter of load.
        deadline_s: after so long nobody waits for an answer any more; None: the retry policy says.
    """

    words: tuple[Word, ...] = field(repr=False)
    parse: Callable[[Any], T_co]
    repeatable: bool = True
    retries_busy: bool = True
    deadline_s: float | None = None
