"""How an alias is stored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.cache.alias import Alias, AliasSource, Canonical, decode_alias, encode_alias
from pyrope.cache.query_key import QueryKey, text_key, vector_key

TEXTS = st.text(min_size=1).filter(lambda text: bool(text.strip())).map(str.encode).map(text_key)
KEYS = TEXTS | st.binary(min_size=4, max_size=64).map(vector_key)
TIMES = st.integers(0, 2**63)


@given(KEYS, KEYS, st.floats(0, 1), st.sampled_from(AliasSource), TIMES, TIMES)
def test_an_alias_comes_back_as_it_was_stored(
    key: QueryKey,
    canonical: QueryKey,
    confidence: float,
    source: AliasSource,
    created: int,
    expires: int,
) -> None:
    alias = Alias(key, Canonical(canonical, confidence, source), created, expires, hits=7)
    again = decode_alias(key.identity, encode_alias(alias))
    assert (again.key, again.canonical) == (alias.key, alias.canonical)
    assert (again.created_at_ms, again.expires_at_ms, again.hits) == (created, expires, 0)


def test_an_alias_of_a_newer_format_is_refused() -> None:
    alias = Alias(text_key(b"a"), Canonical(text_key(b"b"), 1.0, AliasSource.RULE), 1, 0)
    stored = b"\x02" + encode_alias(alias)[1:]
    with pytest.raises(ValueError, match="format 2"):
        decode_alias(alias.key.identity, stored)
