from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.semantic.evidence import NOTHING, Evidence
from pyrope.semantic.remembered.entry import (
    Body,
    Documents,
    Entry,
    EntryFormatError,
    Stage,
    apply_state,
    decode_entry,
    encode_entry,
    encode_state,
    parse_name,
    prompt_key,
)

u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
documents = st.none() | st.builds(
    Documents,
    u64.filter(bool),
    st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=3).map(tuple),
)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    return Entry(
        id=draw(u64),
        key=b"",
        prompt=draw(st.text(min_size=1, max_size=20)).encode(),
        scope=draw(st.binary(max_size=20)),
        body=Body.of(draw(st.binary(max_size=2000) | st.just(b"a" * 5000))),
        created_ms=draw(u64),
        expires_ms=draw(u64),
        sliding_ms=draw(u64),
        cost=draw(st.floats(0, 1e12)),
        tokens_in=draw(u32),
        tokens_out=draw(u32),
        vector_bytes=8,
        documents=draw(documents),
        stage=Stage.LIVE,
    )


_FIELDS = [
    name
    for name in Entry.__slots__
    if name not in ("key", "place", "older", "number", "count", "epoch")
]


@given(entries(), st.binary(min_size=8, max_size=8))
def test_an_entry_is_read_as_it_was_written(entry: Entry, vector: bytes) -> None:
    read, its = decode_entry(entry.record_key, encode_entry(entry, vector))
    assert its == vector
    assert [getattr(read, name) for name in _FIELDS] == [getattr(entry, name) for name in _FIELDS]
    assert read.body.response() == entry.body.response()


@given(entries(), entries(), st.sampled_from([False, True]), st.floats(-6, 6), st.floats(0, 1e3))
def test_so_is_what_has_become_of_it(
    entry: Entry,
    other: Entry,
    quarantined: bool,  # noqa: FBT001 - hypothesis passes it
    offset: float,
    information: float,
) -> None:
    entry.is_quarantined, entry.hits, entry.used_ms = quarantined, 7, 9
    entry.evidence = Evidence(offset, information) if information else NOTHING
    apply_state(other, encode_state(entry))
    names = ("is_quarantined", "hits", "used_ms", "expires_ms", "evidence")
    assert [getattr(other, name) for name in names] == [getattr(entry, name) for name in names]


def test_what_a_newer_pyrope_wrote_is_refused() -> None:
    entry = Entry(1, b"", b"p", b"", Body.of(b"r"), 1, 0, 0, 0.0, 0, 0, 0)
    with pytest.raises(EntryFormatError, match="format 2"):
        decode_entry(entry.record_key, b"\x02" + encode_entry(entry, b"")[1:])
    with pytest.raises(EntryFormatError, match="format 2"):
        apply_state(entry, b"\x02" + encode_state(entry)[1:])


def test_a_response_is_compressed_where_that_pays() -> None:
    text = b"The quick brown fox jumps over the lazy dog, and so on. " * 40
    noise = random.Random(1).randbytes(len(text))
    for response, pays in ((text, True), (noise, False), (text[:100], False), (b"", False)):
        body = Body.of(response)
        assert body.is_compressed is pays
        assert body.nbytes == len(response)
        assert body.response() == response
        assert len(body.stored) <= len(response)


def test_names_are_16_hexadecimal_digits_and_nothing_else() -> None:
    entry = Entry(0xAB, b"", b"p", b"", Body.of(b"r"), 1, 0, 0, 0.0, 0, 0, 0)
    assert entry.name == b"00000000000000ab"
    assert parse_name(entry.name) == 0xAB
    for name in (
        b"",
        b"ab",
        b"00000000000000AB",
        b"0x000000000000ab",
        b" 0000000000000ab",
        b"g" * 16,
    ):
        assert parse_name(name) is None


def test_an_entry_serves_if_nothing_speaks_against_it() -> None:
    entry = Entry(1, b"", b"p", b"", Body.of(b"r"), 1, 50, 0, 0.0, 0, 0, 0)
    assert not entry.may_serve(10)
    entry.stage = Stage.LIVE
    assert entry.may_serve(49)
    assert not entry.may_serve(50)
    entry.leaving = 1
    assert not entry.may_serve(10)
    entry.leaving, entry.is_quarantined = 0, True
    assert not entry.may_serve(10)


def test_prompts_are_told_apart_by_16_bytes() -> None:
    assert len({prompt_key(b"%d" % number) for number in range(1000)}) == 1000
    assert {len(prompt_key(b"%d" % number)) for number in range(10)} == {16}
