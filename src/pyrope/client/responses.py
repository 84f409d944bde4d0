"""VECTOR.REMEMBER, RECALL, FORGET and FEEDBACK: what a language model said, for whoever asks again.

A prompt is found by its text, or by one that means the same; see docs/remembered.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypedDict, Unpack

from numpy.typing import ArrayLike

from pyrope.client import replies
from pyrope.client.request import Request
from pyrope.client.results import Lease, NearestMiss, Recalled, RecallInfo
from pyrope.client.words import Id, Word, check_names, flag, id_word, option, vector_word

Scope: TypeAlias = Mapping[str, str | bytes | int]
"""Fields with their values. What is remembered in one scope is found in no other."""


class ResponseOptions(TypedDict, total=False):
    """Options of a response; see docs/wire.md, *Remembered responses*.

    Attributes:
        depends_on: an index and ids in it that the response was made from: when one of them
            changes, the response is forgotten; None: none.
        expires_s: seconds from now; None: as the index has it.
        cost: what it took, in cost units, and what every answer with it saves; None: the server's
            own estimate.
        lease: that `recall` gave.
    """

    depends_on: tuple[str, Sequence[Id]] | None
    expires_s: int | None
    cost: float | None
    lease: Lease | None


_NAMES = frozenset(ResponseOptions.__annotations__)


def remember(
    index: str,
    prompt: Id,
    response: Id,
    vector: ArrayLike | None = None,
    *,
    scope: Scope | None = None,
    **options: Unpack[ResponseOptions],
) -> Request[str]:
    """Remember the response to a prompt, in place of the one that there was.

    Args:
        prompt, response: not empty.
        vector: of the prompt, shape (dim,); None: the index's embedder makes it.
        scope: who may be answered with it; None: whoever asks without a scope.
        options: see `ResponseOptions`.

    Returns:
        The id of what is remembered.

    Raises:
        NoIndexError, DimensionError, QuotaError, BudgetError, OutOfMemoryError: the server refuses.
        CommandError: as well, such as an id in `depends_on` that is not there.
        TypeError, ValueError: this is no vector; nothing was sent.
    """
    check_names(options, _NAMES)
    lease = options.get("lease")
    words = (
        *_vector(vector),
        *option("EX", options.get("expires_s")),
        *_scope(scope),
        *_documents(options.get("depends_on")),
        *option("LEASE", None if lease is None else lease.token),
        *option("COST", options.get("cost")),
    )
    return Request(
        ("VECTOR.REMEMBER", index, id_word(prompt), id_word(response), *words), replies.text
    )


def recall(
    index: str,
    prompt: Id,
    vector: ArrayLike | None = None,
    *,
    threshold: float | None = None,
    max_error: float | None = None,
    scope: Scope | None = None,
    lease_s: float | None = None,
    info: bool = False,
) -> Request[Recalled]:
    """Find a response to a prompt, or to one that means the same.

    Args:
        vector: of the prompt, shape (dim,); None: the index's embedder makes it.
        threshold: answer from a cosine of so much on; or
        max_error: only where so large a share of such answers is wrong, at most; neither: as the
            index has it.
        scope: only what was remembered in this one.
        lease_s: where there is none, be given a lease, or wait so long for the response of who
            has it; less than the client's `timeout_s`. Whoever waits needs a connection of its
            own all the while, and so does whoever holds a lease that is to be handed on when the
            connection is lost.
        info: whether to tell how it came about; told anyway with `lease_s`.

    Raises:
        NoIndexError, DimensionError, CommandError, QuotaError, BudgetError, BusyError: the server
            refuses.
        TypeError, ValueError: this is no vector; nothing was sent.
    """
    informed = info or lease_s is not None
    words = (
        *_vector(vector),
        *option("THRESHOLD", threshold),
        *option("MAXERROR", max_error),
        *_scope(scope),
        *option("LEASE", None if lease_s is None else max(1, math.ceil(lease_s * 1000))),
        *flag("WITHINFO", informed),
    )
    return Request(
        ("VECTOR.RECALL", index, id_word(prompt), *words), _informed if informed else Recalled
    )


def forget(
    index: str,
    *,
    id: str | None = None,  # noqa: A002 - that is what it is called
    prompt: Id | None = None,
    scope: Scope | None = None,
) -> Request[int]:
    """Forget one response by its id, those to a prompt, or those of a scope: exactly one is given.

    Args:
        scope: those go whose scopes have all of these fields, with these values.

    Returns:
        How many are gone.

    Raises:
        NoIndexError: there is no such index.
        TypeError: none or several are given.
    """
    if (id is not None) + (prompt is not None) + (scope is not None) != 1:
        raise TypeError("exactly one is to be given: an id, a prompt, or a scope")
    words = (*option("ID", id), *option("PROMPT", None if prompt is None else id_word(prompt)))
    return Request(("VECTOR.FORGET", index, *words, *_scope(scope)), int)


def feedback(index: str, id: str, *, good: bool, prompt: Id | None = None) -> Request[None]:  # noqa: A002 - that is what it is called
    """Tell whether a response was right; one that was not is no longer served.

    Args:
        id: as `RecallInfo` has it.
        prompt: that it answered; None: the one that it answered last.

    Raises:
        NoIndexError: there is no such index.
        CommandError: nothing is remembered under the id.
    """
    words = option("PROMPT", None if prompt is None else id_word(prompt))
    return Request(
        ("VECTOR.FEEDBACK", index, id, "GOOD" if good else "BAD", *words),
        replies.nothing,
        repeatable=False,
    )


def _vector(vector: ArrayLike | None) -> tuple[Word, ...]:
    return () if vector is None else ("FP32", vector_word(vector))


def _scope(scope: Scope | None) -> tuple[Word, ...]:
    if scope is None:
        return ()
    pairs = ((id_word(name), _value(value)) for name, value in scope.items())
    return ("SCOPE", len(scope), *(word for pair in pairs for word in pair))


def _value(value: str | bytes | int) -> Word:
    # True would be sent as the number that it equals.
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return id_word(value)  # type: ignore[arg-type]  # raises TypeError for what it is not for


def _documents(depends_on: tuple[str, Sequence[Id]] | None) -> tuple[Word, ...]:
    if depends_on is None or not depends_on[1]:
        return ()
    index, ids = depends_on
    return ("DEPENDS", index, len(ids), *map(id_word, ids))


def _informed(reply: tuple[bytes | None, Mapping[bytes, Any]]) -> Recalled:
    response, info = reply
    return Recalled(response, _info(info))


def _info(reply: Mapping[bytes, Any]) -> RecallInfo:
    told = replies.fields(reply)
    take = told.pop
    lease, nearest = replies.plain(take("lease")), replies.plain(take("nearest"))
    texts = ("id", "match", "prompt", "guard", "request_id")
    numbers = (
        "score", "estimated_error", "threshold", "max_error", "tokens_saved", "cost_saved",
        "latency_us",
    )  # fmt: skip
    return RecallInfo(
        lease=None if lease is None else Lease(lease),
        nearest=None if nearest is None else _nearest(nearest),
        age_s=take("age"),
        shadow=bool(take("shadow")),
        waited_s=take("waited_ms") / 1000,
        **{name: replies.plain(take(name)) for name in texts},
        **{name: take(name) for name in numbers},
        more=replies.rest(told),
    )


def _nearest(told: Mapping[str, Any]) -> NearestMiss:
    names = ("id", "prompt", "score", "estimated_error", "refused_by")
    return NearestMiss(**{name: told[name] for name in names})
