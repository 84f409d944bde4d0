"""What jobs for the language model are about: the question, and what its answer changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pyrope.cache.asked_texts import AskedText
from pyrope.cache.query_key import QueryKey
from pyrope.llm.questions import (
    AdviceQuestion,
    CanonicalQuestion,
    NextQuestion,
    Question,
    VerifyQuestion,
)
from pyrope.service.answers import Key


@dataclass(frozen=True, slots=True)
class CanonicalWork:
    """Which candidate a text is another name of.

    Attributes:
        uid: of the index; likewise below.
        asked: the text.
        candidates: with the cosine of each to the text's vector; in the order of the question's.
    """

    uid: int
    question: CanonicalQuestion
    asked: AskedText
    candidates: tuple[tuple[AskedText, float], ...]


@dataclass(frozen=True, slots=True)
class NextWork:
    """What comes after a query of a session.

    Attributes:
        previous: the query that was asked last.
        candidates: queries, in the order of the question's.
        count: hits that were wanted of the last one.
    """

    uid: int
    question: NextQuestion
    previous: Key
    candidates: tuple[Key, ...]
    count: int


@dataclass(frozen=True, slots=True)
class AdviceWork:
    """How long answers in a cluster live, and matter.

    Attributes:
        epoch: of the centroids, by which the cluster has its number.
    """

    uid: int
    question: AdviceQuestion
    cluster: int
    epoch: int


@dataclass(frozen=True, slots=True)
class VerifyWork:
    """Whether two texts deserve the same answer.

    Attributes:
        text, other: of which the first may become, or is, an alias of the second.
        group: what else their answers depend on.
        score: cosine of their vectors; NaN where nobody knows.
        doubted: whether the alias is there, and it is asked if rightly so.
    """

    uid: int
    question: VerifyQuestion
    text: QueryKey
    other: QueryKey
    group: Key
    score: float
    doubted: bool


@dataclass(frozen=True, slots=True)
class RecallWork:
    """Whether a prompt deserves the response that is remembered for another one.

    Attributes:
        is_wanted: asked when its turn has come.
        answered: told whether it does.
    """

    uid: int
    question: VerifyQuestion
    is_wanted: Callable[[], bool]
    answered: Callable[[bool], None]


Work = CanonicalWork | NextWork | AdviceWork | VerifyWork


def question_of(work: Work) -> Question:
    return work.question
