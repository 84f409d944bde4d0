"""The errors of the wire, as redis-py brings them."""

from __future__ import annotations

import pytest
from redis import exceptions
from redis._parsers.base import BaseParser

from pyrope import errors
from pyrope.client.failures import hint_s, least_wait_s, typed
from pyrope.client.replies import nothing
from pyrope.client.request import Request
from pyrope.embed.embedder import EmbedderError, Failure, refusal
from pyrope.tenants.lockout import LockedOutError
from pyrope.tenants.quota import RateLimit, check_vectors, refuse_concurrency, refuse_rate

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.PyropeError)
    and kind not in (errors.PyropeError,)
]  # fmt: skip


def received(line: str) -> exceptions.RedisError:
    """What redis-py makes of an error that the server wrote."""
    error = BaseParser.parse_error(line)
    assert isinstance(error, exceptions.RedisError)
    return error


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.prefix)
def test_every_error_of_the_wire_has_its_exception(kind: type[errors.PyropeError]) -> None:
    error = typed(received(f"{kind.prefix} this was wrong"))
    assert type(error) is kind
    assert error.message == "this was wrong"


def test_an_error_that_nobody_knows_keeps_all_its_words() -> None:
    for line in ("STRANGE thing", "READONLY You can't write"):
        error = typed(received(line))
        assert type(error) is errors.PyropeError
        assert error.message == line


def test_what_is_no_answer_stays_what_it_is() -> None:
    for error in (
        exceptions.ConnectionError("gone"),
        exceptions.TimeoutError("late"),
        exceptions.DataError("no such type"),
        received("ERR max number of clients reached"),
    ):
        assert typed(error) is error


def quota_of(error: errors.QuotaError) -> errors.QuotaError:
    """A refusal after it has travelled."""
    back = typed(received(f"QUOTA {error.message}"))
    assert isinstance(back, errors.QuotaError)
    return back


def test_the_hints_of_the_server_are_read() -> None:
    rate = quota_of(refuse_rate("acme", RateLimit(2.0), 0.4321))
    assert rate.retry_after_s == pytest.approx(0.433)
    assert quota_of(refuse_concurrency("acme", 3)).retry_after_s == 0.0
    wait = EmbedderError(Failure.THROTTLED, "slow down", retry_after_s=2.5)
    assert hint_s(refusal("gemini", wait).message) == 2.5
    assert hint_s(str(LockedOutError(7))) == 7.0


def test_where_waiting_does_not_help_there_is_no_hint() -> None:
    assert quota_of(refuse_rate("acme", RateLimit(0.0), 0.0)).retry_after_s is None
    assert quota_of(refuse_concurrency("acme", 0)).retry_after_s is None
    with pytest.raises(errors.QuotaError) as refused:
        check_vectors("acme", 10, 10, 1)
    assert quota_of(refused.value).retry_after_s is None
    assert hint_s("retry with backoff") is None
    assert hint_s("retry in e.e s") is None


ONCE = Request(("VECTOR.ADD",), nothing, repeatable=False)
AGAIN = Request(("VECTOR.CARD",), nothing)


@pytest.mark.parametrize(
    "error", [errors.BusyError("shed"), errors.LoadingError("restoring")], ids=["BUSY", "LOADING"]
)
def test_what_was_refused_may_be_sent_again_whatever_it_is(error: errors.PyropeError) -> None:
    assert least_wait_s(ONCE, error) == 0.0
    assert least_wait_s(AGAIN, error) == 0.0


def test_busy_as_an_answer_is_final() -> None:
    only = Request(("VECTOR.SEARCH",), nothing, retries_busy=False)
    assert least_wait_s(only, errors.BusyError("not in the cache")) is None


@pytest.mark.parametrize("kind", [exceptions.ConnectionError, exceptions.TimeoutError])
def test_when_nobody_knows_what_happened_only_the_repeatable_is_sent_again(
    kind: type[exceptions.RedisError],
) -> None:
    assert least_wait_s(AGAIN, kind("gone")) == 0.0
    assert least_wait_s(ONCE, kind("gone")) is None


@pytest.mark.parametrize(
    "kind",
    [
        errors.CommandError,
        errors.NoAuthError,
        errors.NoIndexError,
        errors.ExistsError,
        errors.DimensionError,
        errors.BudgetError,
        errors.OutOfMemoryError,
        errors.MisconfError,
    ],
)
def test_a_refusal_that_stays_is_final(kind: type[errors.PyropeError]) -> None:
    assert least_wait_s(AGAIN, kind("no")) is None
