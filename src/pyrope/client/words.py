"""Python values as the words of a command."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Word: TypeAlias = bytes | str | int | float
Id: TypeAlias = str | bytes
"""A str stands for its UTF-8; see `id_word`."""
Attributes: TypeAlias = Mapping[str, Any]
"""What JSON can say: names to strings, numbers, booleans, None, lists and mappings."""


def option(token: str, value: Word | np.generic | None) -> tuple[Word, ...]:
    """A word with its value; nothing where that is None."""
    if value is None:
        return ()
    return (token, value.item() if isinstance(value, np.generic) else value)


def flag(token: str, chosen: object) -> tuple[Word, ...]:
    """A word that stands alone."""
    return (token,) if chosen else ()


def id_word(value: Id) -> bytes:
    """An id as the server keeps it.

    Lone surrogates stand for bytes that are no UTF-8 (PEP 383), as `pyrope.client.replies.text`
    makes them: every id that was read as a str can be sent as one.

    Raises:
        TypeError: it is neither str nor bytes.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    raise TypeError(f"an id is a str or bytes, not {type(value).__name__}")


def attributes_word(value: Attributes | None) -> bytes:
    """Attributes as JSON; None: the empty word, which stands for none.

    Raises:
        TypeError: it is no mapping, or holds what JSON cannot say.
        ValueError: a number is NaN or infinite.
    """
    if value is None:
        return b""
    if not isinstance(value, Mapping):
        raise TypeError(f"attributes are a mapping, not {type(value).__name__}")
    return json.dumps(
        dict(value), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    ).encode()


def vector_word(value: ArrayLike) -> bytes:
    """A vector of shape (dim,), of any real dtype and memory layout, as little-endian float32.

    Raises:
        TypeError: these are no real numbers.
        ValueError: the shape is another one, or a number is NaN, infinite or beyond float32.
    """
    return _reals(value, 1, "(dim,)").tobytes()


def matrix_of(value: ArrayLike) -> NDArray[Any]:
    """Vectors of shape (n, dim), as they are; n and dim are at least 1.

    Raises:
        TypeError, ValueError: as `vector_word`, but what is in it has not been looked at.
    """
    return _shaped(value, 2, "(n, dim)")


def rows_word(rows: ArrayLike) -> bytes:
    """Vectors of shape (n, dim) as little-endian float32, one after another.

    Raises:
        TypeError, ValueError: as `vector_word`.
    """
    return _reals(rows, 2, "(n, dim)").tobytes()


def check_rows(rows: ArrayLike) -> None:
    """Raises ValueError where `rows_word` would for what is in the rows."""
    _reals(rows, 2, "(n, dim)")


def query_words(
    vector: ArrayLike | None = None, text: str | None = None, element: Id | None = None
) -> tuple[Word, ...]:
    """A vector argument; exactly one of the three is to be given.

    Raises:
        TypeError: none or several are given, or as `vector_word`.
        ValueError: as `vector_word`.
    """
    if (vector is not None) + (text is not None) + (element is not None) != 1:
        raise TypeError("exactly one is to be given: a vector, a text, or an element")
    if vector is not None:
        return ("FP32", vector_word(vector))
    if text is not None:
        return ("TEXT", text)
    assert element is not None  # noqa: S101 - it is one of the three
    return ("ELE", id_word(element))


def levels_word(levels: str | Iterable[str] | None) -> str | None:
    """Levels of caches: ``OFF``, ``ALL``, or names, in a str or one by one. None: as it is."""
    if levels is None or isinstance(levels, str):
        return levels
    return ",".join(map(str, levels)) or "OFF"


def check_names(given: Iterable[str], known: frozenset[str]) -> None:
    """Raises TypeError for a keyword that no call knows."""
    if unknown := set(given) - known:
        raise TypeError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")


def _reals(value: ArrayLike, dimensions: int, shape: str) -> NDArray[np.float32]:
    array = _shaped(value, dimensions, shape)
    # What is too large for float32 becomes infinite.
    with np.errstate(over="ignore"):
        floats = np.ascontiguousarray(array, dtype="<f4")
    if not np.isfinite(floats).all():
        raise ValueError("a vector holds NaN, infinity, or a number beyond float32")
    return floats


def _shaped(value: ArrayLike, dimensions: int, shape: str) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"vectors are of real numbers, not of {array.dtype}")
    if array.ndim != dimensions or not array.size:
        raise ValueError(f"the shape {shape} is expected, and nothing empty, not {array.shape}")
    return array
