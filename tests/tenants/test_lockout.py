from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.errors import WrongPassError
from pyrope.tenants.lockout import LockedOutError, Lockout, LockoutPolicy, origin_of
from pyrope.testing.clock import ManualClock

POLICY = LockoutPolicy(failures=3, seconds=10.0, origin_failures=8, origin_seconds=2.0, entries=100)


def make(policy: LockoutPolicy = POLICY) -> tuple[ManualClock, Lockout]:
    clock = ManualClock()
    return clock, Lockout(clock, policy)


def fail(lockout: Lockout, login: str, origin: str, times: int = 1) -> None:
    for _ in range(times):
        lockout.check(login, origin)
        lockout.failed(login, origin)


def refused(lockout: Lockout, login: str, origin: str) -> int:
    """Seconds to wait; 0: an attempt would be looked at."""
    try:
        lockout.check(login, origin)
    except LockedOutError as error:
        return error.retry_after_s
    return 0


def test_a_few_failures_are_forgiven_and_then_the_login_is_refused() -> None:
    _, lockout = make()
    fail(lockout, "acme", "a", times=3)
    with pytest.raises(WrongPassError, match="retry in 10 s") as caught:
        lockout.check("acme", "a")
    assert isinstance(caught.value, LockedOutError)
    assert caught.value.prefix == "WRONGPASS"


def test_one_failure_is_forgotten_after_each_period() -> None:
    clock, lockout = make()
    fail(lockout, "acme", "a", times=3)
    clock.advance(9.5)
    assert refused(lockout, "acme", "a") == 1
    clock.advance(0.5)
    fail(lockout, "acme", "a")
    assert refused(lockout, "acme", "a") == 10
    clock.advance(1e6)
    fail(lockout, "acme", "a", times=3)
    assert refused(lockout, "acme", "a") == 10


def test_attempts_while_locked_out_do_not_lengthen_it() -> None:
    clock, lockout = make()
    fail(lockout, "acme", "a", times=3)
    for _ in range(40):
        assert refused(lockout, "acme", "a") > 0
        clock.advance(0.25)
    assert refused(lockout, "acme", "a") == 0
    assert lockout.refused_total == 40
    assert lockout.failures_total == 3


def test_nobody_is_locked_out_by_failures_from_elsewhere() -> None:
    _, lockout = make()
    for attacker in range(90):
        fail(lockout, "acme", f"attacker {attacker}", times=3)
    assert refused(lockout, "acme", "owner") == 0


def test_other_logins_of_the_same_origin_go_on() -> None:
    _, lockout = make()
    fail(lockout, "acme", "a", times=3)
    assert refused(lockout, "beta", "a") == 0


def test_who_tries_many_logins_is_refused_for_all_of_them() -> None:
    clock, lockout = make()
    for number in range(8):
        fail(lockout, f"guess {number}", "a")
    assert refused(lockout, "beta", "a") == 2
    assert refused(lockout, "beta", "b") == 0
    clock.advance(2.0)
    assert refused(lockout, "beta", "a") == 0


def test_success_clears_a_login_and_not_its_origin() -> None:
    _, lockout = make()
    fail(lockout, "acme", "a", times=2)
    lockout.succeeded("acme", "a")
    fail(lockout, "acme", "a", times=2)
    lockout.succeeded("acme", "a")
    fail(lockout, "beta", "a", times=3)
    # Seven failures of eight: a success in between has not bought more guesses at other logins.
    fail(lockout, "gamma", "a")
    assert refused(lockout, "delta", "a") > 0


def test_stepping_the_wall_clock_changes_nothing() -> None:
    clock, lockout = make()
    fail(lockout, "acme", "a", times=3)
    for wall in (0.0, 1e10):
        clock.set_wall(wall)
        assert refused(lockout, "acme", "a") == 10


def test_the_tables_are_bounded_and_forget_who_has_been_quiet_longest() -> None:
    _, lockout = make(LockoutPolicy(failures=1, entries=100))
    fail(lockout, "quiet", "q")
    fail(lockout, "busy", "b")
    for number in range(99):
        fail(lockout, "acme", f"origin {number}")
    assert lockout.entries_current == 200
    assert refused(lockout, "quiet", "q") == 0
    assert refused(lockout, "busy", "b") > 0


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.integers(0, 30), st.booleans()),
        max_size=80,
    )
)
def test_no_span_of_time_holds_more_failures_than_the_policy_says(
    attempts: list[tuple[str, str, int, bool]],
) -> None:
    clock, lockout = make()
    by_login: dict[tuple[str, str], list[float]] = defaultdict(list)
    by_origin: dict[str, list[float]] = defaultdict(list)
    for login, origin, quarters, wrong in attempts:
        clock.advance(quarters / 4)
        now = clock.monotonic()
        wait = refused(lockout, login, origin)
        if wait:
            clock.advance(wait)
            assert refused(lockout, login, origin) == 0, "who waits as told is heard"
        elif wrong:
            lockout.failed(login, origin)
            by_login[login, origin].append(now)
            by_origin[origin].append(now)
        else:
            lockout.succeeded(login, origin)
            by_login[login, origin].clear()
    for times, burst, seconds in [
        *((times, POLICY.failures, POLICY.seconds) for times in by_login.values()),
        *((times, POLICY.origin_failures, POLICY.origin_seconds) for times in by_origin.values()),
    ]:
        for i, first in enumerate(times):
            for j, last in enumerate(times[i:]):
                assert j + 1 <= burst + (last - first) / seconds


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("10.0.0.1:5000", "10.0.0.1"),
        ("[::ffff:10.0.0.1]:5000", "10.0.0.1"),
        ("::1", "::/64"),
        ("[2001:db8:1:2:3::9]:5000", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("[fe80::1%eth0]:5000", "fe80::/64"),
        ("/run/pyrope.sock:0", "/run/pyrope.sock:0"),
        ("", ""),
    ],
)
def test_an_origin_is_an_address_without_its_port_or_a_network_of_ipv6(
    address: str, origin: str
) -> None:
    assert origin_of(address) == origin


@pytest.mark.parametrize(
    "values", [{"failures": 0}, {"entries": 0}, {"seconds": 0.0}, {"origin_seconds": float("inf")}]
)
def test_a_policy_that_would_lock_out_everybody_or_nobody_is_refused(
    values: dict[str, float],
) -> None:
    with pytest.raises(ValueError, match="a lock-out"):
        LockoutPolicy(**values)  # type: ignore[arg-type] # ints and floats, as the fields have them
