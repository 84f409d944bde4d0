from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from pyrope.embed.text_cache import TextCache, TextKey


def key(text: bytes, tenant: str = "acme", embedder: str = "wordllama") -> TextKey:
    return TextKey(embedder, tenant, text)


def test_what_was_put_is_there() -> None:
    cache = TextCache(10_000)
    cache.put(key(b"a"), b"1234")
    assert cache.get(key(b"a")) == b"1234"
    assert cache.get(key(b"b")) is None
    found = cache.statistics()
    assert (found.entries_current, found.hits_total, found.misses_total) == (1, 1, 1)


def test_tenants_and_embedders_do_not_share() -> None:
    cache = TextCache(10_000)
    cache.put(key(b"a"), b"1234")
    assert cache.get(key(b"a", tenant="other")) is None
    assert cache.get(key(b"a", embedder="openai")) is None


def test_no_memory_keeps_nothing() -> None:
    cache = TextCache(0)
    cache.put(key(b"a"), b"1234")
    assert cache.get(key(b"a")) is None
    assert cache.statistics().bytes_current == 0


def test_what_is_too_large_goes_and_takes_nothing_with_it() -> None:
    cache = TextCache(1000)
    cache.put(key(b"a"), b"1234")
    cache.put(key(b"b"), bytes(2000))
    assert cache.get(key(b"a")) == b"1234"
    assert cache.get(key(b"b")) is None
    cache.put(key(b"a"), bytes(2000))
    assert cache.statistics().entries_current == cache.statistics().bytes_current == 0


@given(
    st.integers(0, 4000),
    st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 900)), max_size=60),
)
def test_it_is_bounded_and_the_least_recently_used_goes_first(
    most: int, steps: list[tuple[bool, int, int]]
) -> None:
    cache = TextCache(most)
    model: OrderedDict[bytes, bytes] = OrderedDict()
    for puts, name, size in steps:
        text, vector = b"%d" % name, bytes(size)
        if not puts:
            assert cache.get(key(text)) == model.get(text)
            if text in model:
                model.move_to_end(text)
            continue
        cache.put(key(text), vector)
        model.pop(text, None)
        model[text] = vector

        def total(kept: OrderedDict[bytes, bytes]) -> int:
            measured = TextCache(10**9)
            for each, content in kept.items():
                measured.put(key(each), content)
            return measured.statistics().bytes_current

        if total(OrderedDict({text: vector})) > most:
            del model[text]
        while total(model) > most:
            model.popitem(last=False)
        assert cache.statistics().bytes_current == total(model) <= most
    assert cache.statistics().entries_current == len(model)
