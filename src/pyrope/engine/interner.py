"""Small integers in place of repeated keys, given back when nobody holds them any more."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_ENTRY_BYTES: Final = 130
"""Beside the key: its place in the dictionary and in two lists, and the code (CPython 3.11)."""

_DIGEST_FROM: Final = 64
"""Characters from which a string's digest stands for it."""


class Interner(Generic[K]):
    """Codes (dense ints from 0, reused) for keys, with a count of holders each.

    Under churn the table holds the keys in use and no others; codes stay below the largest number
    of keys that were ever in use at once.
    """

    __slots__ = ("_codes", "_free", "_holders", "_keys", "nbytes")

    def __init__(self) -> None:
        self._codes: dict[K, int] = {}
        self._keys: list[K | None] = []
        self._holders: list[int] = []
        self._free: list[int] = []
        self.nbytes = 0
        """Estimate of the memory held, in bytes."""

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def code_limit(self) -> int:
        """Every code given out is below this."""
        return len(self._keys)

    def acquire(self, key: K) -> int:
        """The key's code, held once more. Each acquire wants one `release`."""
        code = self._codes.get(key)
        if code is not None:
            self._holders[code] += 1
            return code
        if self._free:
            code = self._free.pop()
            self._keys[code] = key
            self._holders[code] = 1
        else:
            code = len(self._keys)
            self._keys.append(key)
            self._holders.append(1)
        self._codes[key] = code
        self.nbytes += sys.getsizeof(key) + _ENTRY_BYTES
        return code

    def release(self, code: int) -> None:
        """Let go once of a code that `acquire` gave; the last holder frees the key."""
        self._holders[code] -= 1
        if self._holders[code]:
            return
        key = self.key(code)
        del self._codes[key]
        self._keys[code] = None
        self._free.append(code)
        self.nbytes -= sys.getsizeof(key) + _ENTRY_BYTES

    def find(self, key: K) -> int:
        """The key's code, or -1 where nobody holds it."""
        return self._codes.get(key, -1)

    def key(self, code: int) -> K:
        """The key behind a code in use."""
        key = self._keys[code]
        if key is None:
            raise KeyError(code)
        return key


class StringTable:
    """Codes for the strings of all columns.

    Filters ask whether two strings are the same and whether one is empty, nothing else. So a long
    string (a document's text among its attributes) is represented by its 128-bit BLAKE2b digest
    (RFC 7693), and costs no more memory than a short one. The empty string has code `EMPTY` always.
    """

    __slots__ = ("_table",)

    EMPTY: Final = 0

    def __init__(self) -> None:
        self._table: Interner[str | bytes] = Interner()
        self._table.acquire("")

    def __len__(self) -> int:
        return len(self._table)

    @property
    def nbytes(self) -> int:
        return self._table.nbytes

    @property
    def code_limit(self) -> int:
        """Every code given out is below this."""
        return self._table.code_limit

    def acquire(self, text: str) -> int:
        return self._table.acquire(_string_key(text))

    def release(self, code: int) -> None:
        self._table.release(code)

    def find(self, text: str) -> int:
        """The string's code, or -1 where no attribute holds it."""
        return self._table.find(_string_key(text))


def _string_key(text: str) -> str | bytes:
    if len(text) < _DIGEST_FROM:
        return text
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
