from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.tenants.keys import HashedKey, KeyHasher
from pyrope.tenants.limits import OnBudget, Priority, TenantLimits
from pyrope.tenants.records import TenantRecordError, decode_tenant, encode_tenant
from pyrope.tenants.tenant import Role, Tenant, User

KEYS = st.builds(
    HashedKey,
    st.binary(min_size=48, max_size=48),
    st.none() | st.floats(0, 1e12, allow_nan=False),
)
NAMES = st.text("abcXYZ09_-", min_size=1, max_size=20)
USERS = st.dictionaries(
    NAMES, st.tuples(st.sampled_from(list(Role)), KEYS, st.none() | KEYS), max_size=4
).map(lambda plain: {name: User(name, *rest) for name, rest in plain.items()})
LIMITS = st.builds(
    TenantLimits,
    qps=st.none() | st.floats(0.001, 1e9),
    budget=st.none() | st.just(0.0) | st.floats(0.001, 1e15),
    max_vectors=st.none() | st.integers(0, 2**53),
    priority=st.sampled_from(list(Priority)),
    on_budget=st.sampled_from(list(OnBudget)),
    ef_floor=st.integers(1, 100),
    ef_ceiling=st.none() | st.integers(100, 1000),
    degraded_recall=st.none() | st.floats(0, 1),
)


@st.composite
def tenants(draw: st.DrawFn) -> Tenant:
    name, at = draw(NAMES), draw(st.floats(0, 1e12))
    tenant = Tenant.of(name, at, draw(KEYS), draw(LIMITS))
    return replace(tenant, former=draw(st.none() | KEYS), users=draw(USERS))


def some_tenant() -> Tenant:
    hasher = KeyHasher(Random(1).randbytes)
    user = User("bob", Role.READER, hasher.hash(b"u"))
    tenant = Tenant.of("acme.eu", 1_700_000_000.25, hasher.hash(b"k"), TenantLimits(qps=5.0))
    return replace(tenant, users={"bob": user}, former=hasher.hash(b"f", expires_at=12.5))


def sealed(name: str, text: bytes) -> bytes:
    """A record with a checksum that fits, whatever it says."""
    digest = blake2b(name.encode() + b"\0" + text, digest_size=8).hexdigest()
    return text + b" " + digest.encode()


@given(tenants())
def test_what_is_stored_comes_back_as_it_was(tenant: Tenant) -> None:
    assert decode_tenant(tenant.name, encode_tenant(tenant)) == tenant


def test_a_record_holds_no_key_in_the_clear() -> None:
    hasher = KeyHasher(Random(1).randbytes)
    assert b"a secret" not in encode_tenant(Tenant.of("a", 1.0, hasher.hash(b"a secret")))


def test_every_altered_byte_is_noticed_and_the_tenant_named() -> None:
    blob = encode_tenant(some_tenant())
    for position in range(len(blob)):
        altered = bytearray(blob)
        altered[position] ^= 1
        with pytest.raises(TenantRecordError, match=r"record of tenant 'acme\.eu' is damaged"):
            decode_tenant("acme.eu", bytes(altered))


def test_every_truncation_is_noticed() -> None:
    blob = encode_tenant(some_tenant())
    for length in range(len(blob)):
        with pytest.raises(TenantRecordError, match="damaged"):
            decode_tenant("acme.eu", blob[:length])
    with pytest.raises(TenantRecordError, match="damaged"):
        decode_tenant("acme.eu", blob + b"0")


@given(st.binary(max_size=200))
def test_whatever_is_no_record_is_damaged_and_nothing_else(blob: bytes) -> None:
    for one in (blob, sealed("acme", blob)):
        with pytest.raises(TenantRecordError):
            decode_tenant("acme", one)


@pytest.mark.parametrize("name", ["acme", "admin", "", "a b", "x" * 5000])
def test_a_record_under_another_name_is_refused(name: str) -> None:
    with pytest.raises(TenantRecordError) as caught:
        decode_tenant(name, encode_tenant(some_tenant()))
    assert len(str(caught.value)) < 400


def test_a_record_of_a_later_version_says_so() -> None:
    blob = sealed("acme", b'{"v":2,"something":"else"}')
    with pytest.raises(TenantRecordError, match=r"'acme' has version 2, and this Pyrope reads 1"):
        decode_tenant("acme", blob)


HASH = b'"' + b"ab" * 48 + b'"'


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"1",
        b'{"v":1}',
        b'{"v":1,"created_at":1,"key":"ab"}',
        b'{"v":1,"created_at":1,"key":7}',
        b'{"v":1,"created_at":1,"key":["ab"]}',
        b'{"v":1,"created_at":NaN,"key":' + HASH + b"}",
        b'{"v":1,"created_at":"soon","key":' + HASH + b"}",
        b'{"v":1,"created_at":1,"key":' + HASH + b',"limits":{"qps":-1}}',
        b'{"v":1,"created_at":1,"key":' + HASH + b',"limits":{"qps":[]}}',
        b'{"v":1,"created_at":1,"key":' + HASH + b',"limits":{"colour":1}}',
        b'{"v":1,"created_at":1,"key":' + HASH + b',"limits":{"ef_floor":9,"ef_ceiling":8}}',
        b'{"v":1,"created_at":1,"key":' + HASH + b',"users":[]}',
        b'{"v":1,"created_at":1,"key":' + HASH + b',"users":{"a.b":{"role":"reader","key":1}}}',
        b'{"v":1,"created_at":1,"key":' + HASH + b',"users":{"a":{"role":"owner","key":1}}}',
    ],
)
def test_a_record_that_makes_no_sense_is_damaged_though_its_checksum_fits(text: bytes) -> None:
    with pytest.raises(TenantRecordError, match="record of tenant 'acme' is damaged"):
        decode_tenant("acme", sealed("acme", text))


def test_a_plain_record_is_what_it_seems() -> None:
    blob = sealed("acme", b'{"v":1,"created_at":1,"key":' + HASH + b"}")
    assert decode_tenant("acme", blob) == Tenant.of("acme", 1.0, HashedKey(b"\xab" * 48))
