"""The benchmark of what metrics cost a request."""

from __future__ import annotations

from benchmarks.micro_metrics import handlers, measure


def test_every_kind_of_request_is_measured() -> None:
    found = dict(measure(100))
    assert {name.replace(",", "").split()[0] for name in found} == {"hit", "search", "write"}
    assert len(found) == 6


async def test_whole_handlers_are_measured_beside_it() -> None:
    found = await handlers(20)
    assert all(nanoseconds > 0 for nanoseconds in found.values())
