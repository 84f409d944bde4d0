"""What a prompt is made of, for each kind of job: texts that clients have sent, and a few numbers.

A question keeps no more of the world than a prompt shows: whoever makes one bounds its texts, and
knows by itself what the numbers of its candidates stand for.
"""

from __future__ import annotations

from dataclasses import dataclass
from unicodedata import category

MAX_CANDIDATES = 8
"""Texts that a model chooses from."""

MAX_HISTORY = 6
"""Queries of a session that it is shown."""

MAX_SAMPLES = 8
"""Queries that stand for a cluster."""

# A str of CPython, its place in a tuple, and the question itself.
_TEXT_BYTES, _QUESTION_BYTES = 64, 120


@dataclass(frozen=True, slots=True)
class CanonicalQuestion:
    """Which of the candidates means the same as a query, if one does.

    Attributes:
        text: the query.
        candidates: at most `MAX_CANDIDATES`; numbered from 1.
    """

    text: str
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NextQuestion:
    """Which of the candidates a session asks for next.

    Attributes:
        history: its last queries, oldest first, at most `MAX_HISTORY`.
        candidates: as above.
    """

    history: tuple[str, ...]
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AdviceQuestion:
    """How long answers in a cluster should be kept, and how much they matter.

    Attributes:
        samples: queries there, at most `MAX_SAMPLES`.
        writes: to the cluster, in the window of so many seconds.
        hot_writes: from which the cluster counts as hot.
        evicted: answers there that had to go for others, of late.
    """

    samples: tuple[str, ...]
    writes: int
    hot_writes: int
    window_s: int
    evicted: int


@dataclass(frozen=True, slots=True)
class VerifyQuestion:
    """Whether two queries deserve the same answer."""

    one: str
    other: str


Question = CanonicalQuestion | NextQuestion | AdviceQuestion | VerifyQuestion


def shown(text: str) -> str:
    """The form in which a text gets into a prompt: what nobody sees is left out.

    Control characters, marks of direction, characters of no width and tags (general categories Cc,
    Cf, Co, Cs and Cn of the Unicode Standard, section 4.5) become blanks, as they may hide what a
    text says, from people who look at it at least.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join([" " if category(char).startswith("C") else char for char in text])


def texts_of(question: Question) -> tuple[str, ...]:
    """All texts of a question."""
    match question:
        case CanonicalQuestion(text, candidates):
            return (text, *candidates)
        case NextQuestion(history, candidates):
            return history + candidates
        case AdviceQuestion(samples=samples):
            return samples
        case VerifyQuestion(one, other):
            return one, other


def bytes_of(question: Question) -> int:
    """Memory that a question takes, in bytes, about."""
    texts = texts_of(question)
    # CPython keeps a text that is not Latin-1 in 2 or 4 bytes a character.
    return _QUESTION_BYTES + sum([_TEXT_BYTES + 4 * len(text) for text in texts])
