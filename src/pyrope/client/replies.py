"""Replies (RESP3, bytes not decoded) as Python values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pyrope.types import CacheLevel


def text(raw: bytes) -> str:
    """Text. Bytes that are no UTF-8 become lone surrogates (PEP 383), so that nothing is lost."""
    return raw.decode("utf-8", "surrogateescape")


def as_bytes(raw: bytes) -> bytes:
    """An id as it is."""
    return raw


def nothing(_reply: Any) -> None:
    """Of a reply that says no more than OK."""


def plain(reply: Any) -> Any:
    """A reply with text for bytes, however deep."""
    if isinstance(reply, bytes):
        return text(reply)
    if isinstance(reply, dict):
        return {plain(name): plain(value) for name, value in reply.items()}
    if isinstance(reply, list):
        return [plain(value) for value in reply]
    return reply


def names(reply: list[bytes]) -> list[str]:
    return [text(name) for name in reply]


def fields(reply: Mapping[bytes, Any]) -> dict[str, Any]:
    """A map by its names, with values as they came."""
    return {text(name): value for name, value in reply.items()}


def rest(reply: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is left of a map, for those who know what it is."""
    return MappingProxyType({name: plain(value) for name, value in reply.items()})


def levels(raw: bytes) -> frozenset[CacheLevel]:
    """Levels of caches, as the server shows them."""
    told = text(raw)
    return frozenset() if told == "OFF" else frozenset(map(CacheLevel, told.split(",")))


def attributes(raw: bytes | None) -> dict[str, Any] | None:
    """What is kept with a vector; None: nothing."""
    return None if raw is None else json.loads(raw)


def vector(raw: bytes) -> NDArray[np.float32]:
    """Shape (dim,), float32, the caller's own."""
    return np.frombuffer(raw, dtype="<f4").astype(np.float32)


def key_of(given: str | None, reply: bytes) -> str:
    """The key in force: the one that was given, or that the server has made."""
    return text(reply) if given is None else given
