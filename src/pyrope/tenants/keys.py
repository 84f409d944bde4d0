"""API keys: made, hashed, compared, replaced.

A key is stored as a 16-byte random salt and a BLAKE2b digest (RFC 7693; salt and personalisation
as in the BLAKE2 paper, section 2.8), which is fast, and not by a memory-hard function such as
scrypt or Argon2. Why:

- Memory-hard functions make up for what people choose: a password of 30 bits that is hashed at
  0.1 s a guess holds out for years. Keys of Pyrope are made by machines, with 256 bits of
  randomness unless somebody brings their own: no rate of guessing finds one, and what salting is
  for (equal keys of two tenants look different, tables made beforehand are useless) a fast hash
  does as well.
- A key is checked with every HTTP request and every connection, before anything is known about who
  asks. At 50 ms and 64 MiB a check, 40 wrong keys a second would keep two cores busy: the check
  itself would be the denial of service.
- Guesses at the server are limited by the lock-out (`lockout`), whatever a hash costs.

What remains: a weak key that somebody chose by hand is only as good as it is. Whoever steals the
data directory tries millions a second against it. Let the server make the keys.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from pyrope.errors import CommandError

KEY_BYTES_MAX: Final = 512
"""Longer than any token in use; what is hashed for a stranger is bounded by it."""

SALT_BYTES: Final = 16
DIGEST_BYTES: Final = 32

_PERSON: Final = b"pyrope.key.1"
_PREFIX: Final = b"pyr_"  # for scanners of leaked secrets, and for people
_RANDOM_BYTES: Final = 32

RandomBytes = Callable[[int], bytes]
"""So many bytes, from a source fit for secrets: `os.urandom`, which tests alone replace."""


@dataclass(frozen=True, slots=True)
class HashedKey:
    """A key, as it is kept.

    Attributes:
        packed: salt and digest. One object, not two: there may be 100,000 tenants.
        expires_at: Unix time in seconds from which it is not accepted; None: never.
    """

    packed: bytes = field(repr=False)
    expires_at: float | None = None

    @property
    def salt(self) -> bytes:
        """Random, so it also tells this key from every other one. No secret."""
        return self.packed[:SALT_BYTES]

    @property
    def digest(self) -> bytes:
        return self.packed[SALT_BYTES:]

    def expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at

    def ending(self, at: float) -> HashedKey:
        """The same key, accepted until `at` and no longer than it was before."""
        return self if self.expired(at) else replace(self, expires_at=at)


def check_key(key: bytes) -> bytes:
    """The key. Raises CommandError where it is empty or too long."""
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise CommandError(f"invalid key: 1 to {KEY_BYTES_MAX} bytes are expected")
    return key


def generate_key(random_bytes: RandomBytes = os.urandom) -> bytes:
    """A new key: ``pyr_`` and 43 letters, digits, ``-`` or ``_`` that stand for 256 random bits."""
    return _PREFIX + base64.urlsafe_b64encode(random_bytes(_RANDOM_BYTES)).rstrip(b"=")


class KeyHasher:
    """Hashes keys and compares them, in a time that tells nothing of what they are.

    Args:
        random_bytes: where salts and generated keys come from.

    Attributes:
        hashes_total: keys hashed.
    """

    __slots__ = ("_decoy", "_random_bytes", "hashes_total")

    def __init__(self, random_bytes: RandomBytes = os.urandom) -> None:
        self._random_bytes = random_bytes
        # Compared with where there is no key to compare with; nobody knows a key that fits it.
        self._decoy = HashedKey(random_bytes(SALT_BYTES) + random_bytes(DIGEST_BYTES))
        self.hashes_total = 0

    def new_key(self) -> bytes:
        return generate_key(self._random_bytes)

    def hash(self, key: bytes, expires_at: float | None = None) -> HashedKey:
        """The key as it is kept, under a salt of its own. Raises CommandError as `check_key`."""
        salt = self._random_bytes(SALT_BYTES)
        return HashedKey(salt + self._digest(check_key(key), salt), expires_at)

    def matches(self, key: bytes, hashed: HashedKey) -> bool:
        """Whether that is the key, whether expired or not."""
        # One that is too long is hashed in part, and is not it even so.
        digest = self._digest(key[:KEY_BYTES_MAX], hashed.salt)
        return hmac.compare_digest(digest, hashed.digest) and len(key) <= KEY_BYTES_MAX

    def find(
        self, key: bytes, current: HashedKey | None, former: HashedKey | None
    ) -> HashedKey | None:
        """Which of the two a key is, expired or not; None if neither.

        Costs two hashes whatever is given, so that an unknown name takes as long as a known one.
        """
        is_current = self.matches(key, current or self._decoy)
        is_former = self.matches(key, former or self._decoy)
        if is_current:
            return current
        return former if is_former else None

    def _digest(self, key: bytes, salt: bytes) -> bytes:
        self.hashes_total += 1
        return hashlib.blake2b(key, digest_size=DIGEST_BYTES, salt=salt, person=_PERSON).digest()
