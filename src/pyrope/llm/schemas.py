"""What replies have to be. What does not validate is an error, not advice.

All members are required and of plain types, without defaults, so that providers that generate by
schema can be given these as they are. What such a schema cannot say (how many candidates there
were, how far a TTL may be moved) is checked by whoever has asked.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from pyrope.llm.questions import MAX_CANDIDATES

MAX_CANONICAL_CHARS = 200
"""Of a wording that a model proposes."""

MAX_NEXT = 3
"""Queries that it foresees."""

_Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
_Factor = Annotated[float, Field(ge=0.01, le=100.0, allow_inf_nan=False)]


class Reply(BaseModel):
    """A reply: a JSON object with these members, of exactly these types, and no others."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class CanonicalReply(Reply):
    """To a `CanonicalQuestion`.

    Attributes:
        match: number of the candidate that means the same; 0: none does.
        canonical: where none does, the plainest wording of the query; else empty.
        confidence: that this is right.
    """

    match: int = Field(ge=0, le=MAX_CANDIDATES)
    canonical: str = Field(max_length=MAX_CANONICAL_CHARS)
    confidence: _Probability


class Foreseen(Reply):
    """A query that comes next.

    Attributes:
        number: of the candidate.
        probability: that it comes.
    """

    number: int = Field(ge=1, le=MAX_CANDIDATES)
    probability: _Probability


class NextReply(Reply):
    """To a `NextQuestion`.

    Attributes:
        foreseen: the likeliest first; none, where nothing is likely.
    """

    foreseen: list[Foreseen] = Field(max_length=MAX_NEXT)


class AdviceReply(Reply):
    """To an `AdviceQuestion`.

    Attributes:
        nature: whether what is true about the subject changes often, or lasts.
        ttl_factor: what times to live should be multiplied by.
        value_factor: how much more an answer there is worth than one elsewhere.
        confidence: that this is right.
    """

    nature: Literal["volatile", "lasting"]
    ttl_factor: _Factor
    value_factor: _Factor
    confidence: _Probability


class VerifyReply(Reply):
    """To a `VerifyQuestion`.

    Attributes:
        same: whether one answer serves both.
        confidence: that this is right.
    """

    same: bool
    confidence: _Probability
