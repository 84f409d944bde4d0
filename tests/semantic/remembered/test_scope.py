from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyrope.semantic.remembered.scope import EVERYBODY, decode_scope, encode_scope, includes

scopes = st.dictionaries(st.binary(min_size=1, max_size=4), st.binary(max_size=4), max_size=4)


@given(scopes, st.randoms())
def test_the_order_of_fields_means_nothing(scope: dict[bytes, bytes], random: object) -> None:
    pairs = list(scope.items())
    random.shuffle(pairs)  # type: ignore[attr-defined]
    assert encode_scope(pairs) == encode_scope(scope.items())
    assert dict(decode_scope(encode_scope(pairs))) == scope


@given(scopes, scopes)
def test_two_scopes_have_one_form_only_if_they_are_the_same(
    one: dict[bytes, bytes], other: dict[bytes, bytes]
) -> None:
    assert (encode_scope(one.items()) == encode_scope(other.items())) == (one == other)


@given(scopes, scopes)
def test_a_scope_includes_what_it_has(one: dict[bytes, bytes], other: dict[bytes, bytes]) -> None:
    both = encode_scope((one | other).items())
    assert includes(both, (one | other).items())
    assert includes(both, other.items())
    assert includes(encode_scope(one.items()), other.items()) == (other.items() <= one.items())


def test_the_scope_of_everybody_has_no_fields() -> None:
    assert encode_scope(()) == EVERYBODY
    assert not decode_scope(EVERYBODY)
