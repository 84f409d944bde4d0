"""VECTOR.ALIAS: queries that stand for other ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pyrope.client import replies
from pyrope.client.request import Request
from pyrope.client.results import Alias, AliasPage
from pyrope.client.words import Word, option, vector_word


def set_(
    index: str,
    alias: str | ArrayLike,
    canonical: str | ArrayLike,
    *,
    confidence: float | None = None,
    expires_s: int | None = None,
) -> Request[None]:
    """Let a query stand for another one. Each is a text, or a vector of shape (dim,).

    Args:
        confidence: from 0 to 1; None: 1.
        expires_s: seconds from now; None: never.

    Raises:
        NoIndexError, DimensionError, QuotaError: the server refuses.
        CommandError: as well, such as an alias of an alias.
        TypeError, ValueError: this is neither text nor vector; nothing was sent.
    """
    words = (*_key(alias), *_key(canonical))
    words += (*option("CONFIDENCE", confidence), *option("EX", expires_s))
    return Request(("VECTOR.ALIAS", "SET", index, *words), replies.nothing)


def get(index: str, alias: str | ArrayLike) -> Request[Alias | None]:
    """An alias, also one that is not sure enough; None: there is none. Raises NoIndexError."""
    return Request(("VECTOR.ALIAS", "GET", index, *_key(alias)), _maybe_alias)


def delete(index: str, alias: str | ArrayLike) -> Request[bool]:
    """Remove an alias. Returns whether there was one. Raises NoIndexError."""
    return Request(("VECTOR.ALIAS", "DEL", index, *_key(alias)), bool)


def list_page(index: str, cursor: int = 0) -> Request[AliasPage]:
    """Some of the aliases: those from a cursor on, 0 at first. Raises NoIndexError."""
    return Request(("VECTOR.ALIAS", "LIST", index, cursor), _page)


def _key(key: str | ArrayLike) -> tuple[Word, ...]:
    if not isinstance(key, str):
        return ("FP32", vector_word(key))
    # Blanks around a text mean nothing, but this tells it from the word that announces a vector.
    return (f" {key}" if key.upper() == "FP32" else key,)


def _page(reply: list[Any]) -> AliasPage:
    return AliasPage(int(reply[0]), [_alias(each) for each in reply[1]])


def _maybe_alias(reply: Mapping[bytes, Any] | None) -> Alias | None:
    return None if reply is None else _alias(reply)


def _alias(reply: Mapping[bytes, Any]) -> Alias:
    told = replies.fields(reply)
    return Alias(
        alias=_shown(told["alias"]),
        canonical=_shown(told["canonical"]),
        confidence=told["confidence"],
        source=replies.text(told["source"]),
        hits=told["hits"],
        suspended=bool(told["suspended"]),
        ttl_s=told["ttl"],
    )


def _shown(key: bytes | list[bytes]) -> str | NDArray[np.float32]:
    return replies.text(key) if isinstance(key, bytes) else replies.vector(key[1])
