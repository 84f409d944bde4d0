"""Tokens of texts, where a provider counts them together or not at all."""

from __future__ import annotations

from collections.abc import Sequence

_BYTES_A_TOKEN = 3


def estimate(text: str) -> int:
    """Tokens of a text that nobody has counted: one for each three bytes of UTF-8, rounded up.

    English takes about one for four bytes, and Chinese one for three, so that this is rather more
    than less; emoji and random bytes may take up to one a byte.
    """
    return -(-len(text.encode()) // _BYTES_A_TOKEN)


def split(total: int, texts: Sequence[str]) -> list[int]:
    """The tokens of a call by text, in proportion to what each is estimated at.

    They add up to `total` (the largest remainders are rounded up, after Hamilton).
    """
    weights = [max(estimate(text), 1) for text in texts]
    whole = sum(weights)
    shares = [divmod(total * weight, whole) for weight in weights]
    counts = [share for share, _ in shares]
    by_remainder = sorted(range(len(texts)), key=lambda at: -shares[at][1])
    for at in by_remainder[: total - sum(counts)]:
        counts[at] += 1
    return counts
