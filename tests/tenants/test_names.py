from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.errors import CommandError
from pyrope.tenants.names import (
    Login,
    is_tenant_name,
    login_of,
    parse_login,
    parse_tenant_name,
    parse_user_name,
)

LETTERS = "abzAZ09_-"
TENANTS = st.text(LETTERS + ".", min_size=1, max_size=128).filter(is_tenant_name)
USERS = st.text(LETTERS, min_size=1, max_size=128)


@pytest.mark.parametrize("name", ["a", "acme.eu", "A-1_b.", "x" * 128, ".", "default", "admin.x"])
def test_a_tenant_is_called_by_letters_digits_underscores_dots_and_dashes(name: str) -> None:
    assert parse_tenant_name(name.encode()) == parse_tenant_name(name) == name


@pytest.mark.parametrize(
    "raw", [b"", b"x" * 129, b"a b", b"a/b", b"a:b", b"a\n", b"\xc3\xa4", b"a\x00", b"a,b", b"\xff"]
)
def test_other_names_of_tenants_and_users_are_refused(raw: bytes) -> None:
    with pytest.raises(CommandError, match="invalid tenant name"):
        parse_tenant_name(raw)
    with pytest.raises(CommandError, match="invalid user name"):
        parse_user_name(raw)


def test_a_user_has_no_dots() -> None:
    assert parse_user_name(b"bob-1_X") == "bob-1_X"
    with pytest.raises(CommandError, match=r"no '\.'"):
        parse_user_name("bob.eu")


@pytest.mark.parametrize("name", ["admin", "Admin", "ADMIN"])
def test_no_tenant_is_called_as_the_administrator(name: str) -> None:
    with pytest.raises(CommandError, match="administrator"):
        parse_tenant_name(name)
    assert not is_tenant_name(name)


@given(TENANTS, USERS)
def test_what_a_user_signs_in_by_reads_as_that_user_of_that_tenant(tenant: str, user: str) -> None:
    word = login_of(tenant, user)
    assert parse_login(word.encode()) == Login(word, tenant, user)


@given(TENANTS)
def test_the_first_reading_of_a_tenants_name_is_the_tenant(tenant: str) -> None:
    login = parse_login(login_of(tenant, None).encode())
    assert login is not None
    assert login.word == tenant


@pytest.mark.parametrize("word", ["acme", ".bob", "acme.", "."])
def test_a_word_without_two_names_around_its_last_dot_has_one_reading(word: str) -> None:
    assert parse_login(word.encode()) == Login(word, "", "")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_login_or_nobodys(raw: bytes) -> None:
    login = parse_login(raw)
    assert login is None or login.word.encode() == raw
    assert parse_login(raw + b" ") is None
    assert parse_login(b"a" * 258) is None
