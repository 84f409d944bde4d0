from __future__ import annotations

import pytest

from pyrope.semantic.remembered.entry import EntryFormatError
from pyrope.semantic.sources import UNSAID, Source
from pyrope.service.remembered.pairs import PAIR_KIND, Pairs, said_wrong
from pyrope.storage.store import PutSide, SideRecord

A, B, C = (bytes([number]) * 16 for number in range(3))


def records(changes: list[PutSide]) -> list[SideRecord]:
    """What a store holds after these changes."""
    there: dict[bytes, bytes] = {}
    for change in changes:
        assert (change.uid, change.kind) == (7, PAIR_KIND)
        if change.value is None:
            del there[change.key]
        else:
            there[change.key] = change.value
    return [SideRecord(PAIR_KIND, key, value) for key, value in there.items()]


def test_what_was_said_is_kept_by_scope_and_pair() -> None:
    pairs = Pairs(7)
    changes = pairs.said(b"s", A, B, Source.FEEDBACK, right=True)
    changes += pairs.said(b"s", A, B, Source.VERIFIER, right=False)
    changes += pairs.said(b"s", A, C, Source.AUDIT, right=False)
    assert pairs.get(b"s", A, B).feedback == (1, 1)
    assert pairs.get(b"s", A, B).verifier == (-1, 1)
    assert pairs.get(b"", A, B) == pairs.get(b"s", B, A) == UNSAID
    assert set(pairs.of_asked(b"s", A)) == {B, C}
    assert not said_wrong(pairs.get(b"s", A, B))
    assert said_wrong(pairs.get(b"s", A, C))
    again = Pairs(7)
    again.restore(records(changes))
    assert again.of_asked(b"s", A) == pairs.of_asked(b"s", A)
    assert len(again) == 2
    assert again.nbytes == pairs.nbytes


def test_what_is_forgotten_is_deleted() -> None:
    pairs = Pairs(7)
    changes = pairs.said(b"s", A, B, Source.FEEDBACK, right=True)
    changes += pairs.said(b"s", C, B, Source.FEEDBACK, right=True)
    changes += pairs.said(b"s", A, C, Source.FEEDBACK, right=True)
    changes += pairs.forget(b"s", B)
    assert len(records(changes)) == len(pairs) == 1
    assert pairs.forget(b"s", B) == []


def test_past_a_bound_those_go_that_were_of_no_use_for_longest() -> None:
    pairs = Pairs(7, most=2)
    changes = pairs.said(b"", A, B, Source.FEEDBACK, right=True)
    changes += pairs.said(b"", B, C, Source.FEEDBACK, right=True)
    assert pairs.of_asked(b"", A)
    changes += pairs.said(b"", C, A, Source.FEEDBACK, right=True)
    assert len(pairs) == len(records(changes)) == 2
    assert not pairs.of_asked(b"", B)
    assert pairs.of_asked(b"", A)


def test_what_the_disk_refused_was_not_said() -> None:
    pairs = Pairs(7)
    pairs.said(b"", A, B, Source.FEEDBACK, right=True)
    before = pairs.get(b"", A, B)
    pairs.said(b"", A, B, Source.FEEDBACK, right=False)
    pairs.put_back(b"", A, B, before)
    assert pairs.get(b"", A, B) == before
    pairs.put_back(b"", A, B, UNSAID)
    assert len(pairs) == 0
    pairs.put_back(b"", A, B, UNSAID)


def test_somebody_who_says_it_a_thousand_times_is_heard_no_more() -> None:
    pairs = Pairs(7)
    for _ in range(1000):
        assert pairs.said(b"", A, B, Source.FEEDBACK, right=True)
    assert pairs.said(b"", A, B, Source.FEEDBACK, right=True) == []


def test_verdicts_of_a_newer_pyrope_are_refused() -> None:
    (change,) = Pairs(7).said(b"", A, B, Source.FEEDBACK, right=True)
    assert change.value is not None
    with pytest.raises(EntryFormatError, match="format 9"):
        Pairs(7).restore([SideRecord(PAIR_KIND, change.key, b"\x09" + change.value[1:])])
