"""What a near hit is judged by: numbers that say how two prompts compare.

Some come from vectors (how similar, by how much the runner-up is less so, how many others are
near), the rest from the words. All are bounded, so that no prompt, however odd, takes a model far
beyond what it was fitted on.
"""

from __future__ import annotations

from math import log1p
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pyrope.semantic.prompt_facts import PromptFacts
from pyrope.semantic.vocabulary.words import (
    AUXILIARIES,
    DETERMINERS,
    PREPOSITIONS,
    PRONOUNS,
    QUESTION_WORDS,
)

Float64Vector = NDArray[np.float64]

NAMES: Final = (
    "similarity",
    "similarity_squared",
    "similarity_over_80",
    "similarity_over_90",
    "similarity_over_95",
    "stems_jaccard",
    "stems_of_shorter",
    "stems_of_longer",
    "content_jaccard",
    "content_of_shorter",
    "content_of_longer",
    "content_only_fewer",
    "content_only_more",
    "content_only_all",
    "content_shared",
    "letters_only_share",
    "longest_only",
    "longest_shared",
    "bigrams_jaccard",
    "length_ratio",
    "words_more",
    "words_fewer",
    "first_word_same",
    "last_word_same",
    "content_same",
    "words_same",
    "order_turned",
    "question_differs",
    "negation_differs",
    "numbers_differ",
    "numbers_one_sided",
    "names_differ",
    "names_shared",
    "identifiers_differ",
    "only_pronouns",
    "only_auxiliaries",
    "only_prepositions",
    "only_question_words",
    "only_determiners",
    "only_both_sides",
    "inflected",
)
"""In the order of the vector."""

SIMILARITY: Final = 0
_MOST: Final = 8


def features(a: PromptFacts, b: PromptFacts, similarity: float) -> Float64Vector:
    """How two prompts compare; 25 us.

    Symmetric, but for rounding: which of the two was there first is of no account.

    Args:
        similarity: of their vectors; the cosine, or what takes its place (1: the same).

    Returns:
        float64, shape ``(len(NAMES),)``.
    """
    s = min(1.0, max(-1.0, similarity))
    stems_a, stems_b, content_a, content_b = a.stem_set, b.stem_set, a.content_set, b.content_set
    both = stems_a & stems_b
    only_a, only_b = stems_a - both, stems_b - both
    only = only_a | only_b
    content_both = content_a & content_b
    content_only = content_a ^ content_b
    rest_a, rest_b = len(content_a) - len(content_both), len(content_b) - len(content_both)
    stems_shorter, stems_longer = sorted((len(stems_a), len(stems_b)))
    content_shorter, content_longer = sorted((len(content_a), len(content_b)))
    words_fewer, words_more = sorted((len(a.words), len(b.words)))
    letters_only = sum(map(len, content_only))
    letters_both = sum(map(len, content_both))
    bigrams_a = set(zip(a.stems, a.stems[1:], strict=False))
    bigrams_b = set(zip(b.stems, b.stems[1:], strict=False))
    bigrams_both = len(bigrams_a & bigrams_b)
    bigrams_all = len(bigrams_a) + len(bigrams_b) - bigrams_both
    names_only = len(a.names.difference(b.words)) + len(b.names.difference(a.words))
    return np.array(
        (
            s,
            s * s,
            max(s - 0.8, 0.0),
            max(s - 0.9, 0.0),
            max(s - 0.95, 0.0),
            len(both) / max(1, len(stems_a) + len(stems_b) - len(both)),
            len(both) / max(1, stems_shorter),
            len(both) / max(1, stems_longer),
            len(content_both) / max(1, len(content_both) + len(content_only)),
            len(content_both) / max(1, content_shorter),
            len(content_both) / max(1, content_longer),
            log1p(min(rest_a, rest_b, _MOST)),
            log1p(min(max(rest_a, rest_b), _MOST)),
            log1p(min(rest_a + rest_b, 2 * _MOST)),
            log1p(min(len(content_both), 2 * _MOST)),
            letters_only / (letters_only + letters_both + 1),
            min(max(map(len, content_only), default=0), 12),
            min(max(map(len, content_both), default=0), 12),
            bigrams_both / max(1, bigrams_all),
            words_fewer / max(1, words_more),
            min(log1p(words_more), 4.0),
            min(log1p(words_fewer), 4.0),
            float(a.words[:1] == b.words[:1]),
            float(a.words[-1:] == b.words[-1:]),
            float(not content_only),
            float(a.words == b.words),
            _turned(a.content, b.content, content_both),
            float(a.question != b.question),
            float((a.negations ^ b.negations) & 1),
            float(a.numbers != b.numbers),
            float(bool(a.numbers) != bool(b.numbers)),
            float(min(names_only, 3)),
            float(not a.names.isdisjoint(b.words) or not b.names.isdisjoint(a.words)),
            float(a.identifiers != b.identifiers or a.symbols != b.symbols),
            float(min(len(only & PRONOUNS), 3)),
            float(min(len(only & AUXILIARIES), 3)),
            float(min(len(only & PREPOSITIONS), 3)),
            float(min(len(only & QUESTION_WORDS), 3)),
            float(min(len(only & DETERMINERS), 3)),
            float(bool(only_a) and bool(only_b)),
            float(_inflected(content_a - content_b, content_b - content_a)),
        )
    )


def _turned(a: tuple[str, ...], b: tuple[str, ...], both: frozenset[str]) -> float:
    """Of neighbours in one's order of the words of both, the share that the other has turned."""
    if len(both) < 2:
        return 0.0
    places = {word: place for place, word in enumerate(b)}
    order = [places[word] for word in a[:64] if word in both]
    turned = sum(map(int.__gt__, order, order[1:]))
    return turned / max(1, len(order) - 1)


def _inflected(only_a: frozenset[str], only_b: frozenset[str]) -> int:
    """How many words of the one begin as one of the other does, up to 3: forms of one word."""
    if not only_a or not only_b or len(only_a) > _MOST or len(only_b) > _MOST:
        return 0
    found = 0
    for word in only_a:
        if len(word) > 3:
            for other in only_b:
                shared = max(3, min(len(word), len(other)) - 2)
                if word[:shared] == other[:shared]:
                    found += 1
                    break
    return min(found, 3)
