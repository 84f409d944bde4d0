"""Commands that write and read vectors, by id."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from numpy.typing import ArrayLike

from pyrope.client import replies
from pyrope.client.request import Request
from pyrope.client.results import Element, IdT, Page
from pyrope.client.words import (
    Attributes,
    Id,
    Word,
    attributes_word,
    flag,
    id_word,
    option,
    query_words,
    rows_word,
)

ReadId = Callable[[bytes], IdT]
"""How ids of replies are read: `replies.text` or `replies.as_bytes`."""


def add(
    index: str,
    id: Id,  # noqa: A002 - that is what it is called everywhere
    vector: ArrayLike | None = None,
    *,
    text: str | None = None,
    attributes: Attributes | None = None,
    expires_s: int | None = None,
    if_new: bool = False,
    if_there: bool = False,
) -> Request[bool | None]:
    """Add a vector, or replace the one under the id.

    Args:
        vector: shape (dim,), real numbers; or
        text: what the index's embedder makes one of.
        attributes: None: as they are.
        expires_s: seconds from now; None: an expiry that there was is gone.
        if_new, if_there: do it only if the id is not, or is, there.

    Returns:
        True: new. False: replaced. None: if_new or if_there was not met.

    Raises:
        NoIndexError, DimensionError, QuotaError, BudgetError, OutOfMemoryError: the server refuses.
        TypeError, ValueError: this is no vector, or these are no attributes; nothing was sent.
    """
    words = (
        *query_words(vector, text),
        *(() if attributes is None else ("SETATTR", attributes_word(attributes))),
        *flag("NX", if_new),
        *flag("XX", if_there),
        *option("EX", expires_s),
    )
    return Request(
        ("VECTOR.ADD", index, id_word(id), *words), _yes_no, repeatable=not if_new and not if_there
    )


def add_block(
    index: str,
    ids: Sequence[bytes],
    rows: ArrayLike,
    attributes: Sequence[Attributes | None] | None = None,
) -> Request[int]:
    """Add or replace vectors in one command, all or none; see `pyrope.client.bulk` for many.

    Args:
        rows: shape (n, dim), real numbers.
        attributes: n of them, where None stands for no attributes. None: as they are.

    Returns:
        How many ids are new.
    """
    words: list[Word] = ["VECTOR.MADD", index, "FP32", rows_word(rows), "IDS", len(ids), *ids]
    if attributes is not None:
        words += ["ATTRS", len(attributes), *map(attributes_word, attributes)]
    return Request(tuple(words), int)


def get(
    read_id: ReadId[IdT],
    index: str,
    id: Id,  # noqa: A002 - as above
    *,
    vector: bool = False,
) -> Request[Element[IdT] | None]:
    words = ("VECTOR.GET", index, id_word(id), *option("WITHVECTOR", "FP32" if vector else None))
    return Request(words, partial(_element, read_id))


def _element(read_id: ReadId[IdT], reply: Mapping[bytes, Any] | None) -> Element[IdT] | None:
    if reply is None:
        return None
    raw = reply.get(b"vector")
    return Element(
        id=read_id(reply[b"id"]),
        attributes=replies.attributes(reply[b"attr"]),
        vector=None if raw is None else replies.vector(raw),
        ttl_s=reply.get(b"ttl"),
    )


def delete(index: str, *ids: Id) -> Request[int]:
    """Remove vectors.

    Returns:
        How many there were.

    Raises:
        NoIndexError: there is no such index.
        ValueError: no id is given.
    """
    if not ids:
        raise ValueError("at least one id is expected")
    return Request(("VECTOR.DEL", index, *map(id_word, ids)), int)


def exists(index: str, id: Id) -> Request[bool]:  # noqa: A002 - as above
    """Whether an id is there. Raises NoIndexError."""
    return Request(("VECTOR.EXISTS", index, id_word(id)), bool)


def count(index: str) -> Request[int]:
    """How many vectors there are. Raises NoIndexError."""
    return Request(("VECTOR.CARD", index), int)


def scan_page(
    read_id: ReadId[IdT], index: str, cursor: int = 0, count: int | None = None
) -> Request[Page[IdT]]:
    def parse(reply: list[Any]) -> Page[IdT]:
        return Page(int(reply[0]), [read_id(raw) for raw in reply[1]])

    return Request(("VECTOR.SCAN", index, cursor, *option("COUNT", count)), parse)


def set_attributes(
    index: str,
    id: Id,  # noqa: A002 - as above
    attributes: Attributes | None,
) -> Request[bool]:
    """Replace the attributes of a vector; None: remove them.

    Returns:
        Whether the id is there.

    Raises:
        NoIndexError, CommandError, QuotaError, OutOfMemoryError: the server refuses.
        TypeError, ValueError: these are no attributes; nothing was sent.
    """
    return Request(("VECTOR.SETATTR", index, id_word(id), attributes_word(attributes)), bool)


def get_attributes(index: str, id: Id) -> Request[dict[str, Any] | None]:  # noqa: A002 - as above
    """The attributes of a vector; None: it has none, or is not there. Raises NoIndexError."""
    return Request(("VECTOR.GETATTR", index, id_word(id)), replies.attributes)


def _yes_no(reply: Any) -> bool | None:
    return None if reply is None else bool(reply)
