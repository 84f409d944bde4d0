from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.errors import CommandError
from pyrope.tenants.keys import KeyHasher, check_key, generate_key

KEYS = st.binary(min_size=1, max_size=512)


def seeded(seed: int = 1) -> Callable[[int], bytes]:
    return Random(seed).randbytes


@given(KEYS, KEYS)
def test_a_key_matches_its_own_hash_and_no_other_key_does(key: bytes, other: bytes) -> None:
    hasher = KeyHasher(seeded())
    hashed = hasher.hash(key)
    assert hasher.matches(key, hashed)
    assert hasher.matches(other, hashed) == (other == key)


def test_equal_keys_do_not_look_equal() -> None:
    hasher = KeyHasher(seeded())
    first, second = hasher.hash(b"same"), hasher.hash(b"same")
    assert first.salt != second.salt
    assert first.digest != second.digest


def test_a_hash_holds_and_shows_nothing_of_the_key() -> None:
    hashed = KeyHasher(seeded()).hash(b"a secret of mine")
    assert b"secret" not in hashed.packed
    assert repr(hashed) == "HashedKey(expires_at=None)"
    assert (len(hashed.salt), len(hashed.digest)) == (16, 32)


@pytest.mark.parametrize("key", [b"", b"x" * 513])
def test_keys_that_are_empty_or_too_long_are_refused(key: bytes) -> None:
    with pytest.raises(CommandError, match="1 to 512 bytes"):
        check_key(key)
    with pytest.raises(CommandError, match="1 to 512 bytes"):
        KeyHasher(seeded()).hash(key)


def test_a_key_that_begins_as_the_right_one_and_is_too_long_is_wrong() -> None:
    hasher = KeyHasher(seeded())
    assert not hasher.matches(b"x" * 513, hasher.hash(b"x" * 512))


def test_generated_keys_carry_256_bits_in_letters_that_need_no_quotes() -> None:
    randomness = seeded()
    keys = {generate_key(randomness) for _ in range(1000)}
    assert len(keys) == 1000
    assert all(re.fullmatch(rb"pyr_[A-Za-z0-9_-]{43}", key) for key in keys)
    # Every letter that base64 has does occur: nothing of the 256 bits is constant.
    assert len(set(b"".join(key[4:] for key in keys))) == 64


def test_keys_generated_for_real_differ() -> None:
    assert KeyHasher().new_key() != KeyHasher().new_key()


def test_a_key_is_found_among_the_present_one_and_the_one_before() -> None:
    hasher = KeyHasher(seeded())
    current, former = hasher.hash(b"new"), hasher.hash(b"old", expires_at=5.0)
    assert hasher.find(b"new", current, former) is current
    assert hasher.find(b"old", current, former) is former
    assert hasher.find(b"other", current, former) is None
    assert hasher.find(b"old", current, None) is None


@pytest.mark.parametrize("known", [0, 1, 2])
@pytest.mark.parametrize("key", [b"new", b"old", b"other"])
def test_looking_for_a_key_costs_two_hashes_whatever_there_is_to_compare_with(
    known: int, key: bytes
) -> None:
    hasher = KeyHasher(seeded())
    keys = [hasher.hash(b"new"), hasher.hash(b"old")][:known]
    current, former = (*keys, None, None)[:2]
    before = hasher.hashes_total
    hasher.find(key, current, former)
    assert hasher.hashes_total == before + 2


def test_a_key_expires_at_its_time_and_not_before() -> None:
    hashed = KeyHasher(seeded()).hash(b"key", expires_at=100.0)
    assert not hashed.expired(99.999)
    assert hashed.expired(100.0)
    assert not KeyHasher(seeded()).hash(b"key").expired(1e18)


@pytest.mark.parametrize(("expires_at", "end"), [(None, 50.0), (80.0, 50.0), (20.0, 20.0)])
def test_ending_a_key_never_makes_it_last_longer(expires_at: float | None, end: float) -> None:
    hashed = KeyHasher(seeded()).hash(b"key", expires_at)
    ended = hashed.ending(50.0)
    assert ended.expires_at == end
    assert ended.packed == hashed.packed
