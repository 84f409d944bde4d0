"""Remembered responses against a dictionary: whatever is done to them, in whatever order."""

from __future__ import annotations

from collections.abc import Callable

import hiredis
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from service.remembering_world import (
    DOCUMENTS,
    PROMPTS,
    SCOPES,
    VECTORS,
    Document,
    Known,
    RememberingWorld,
    Scope,
    scope_words,
)

# Mostly the same few: what is done to one has to meet.
prompts = st.sampled_from([0, 0, 0, 0, *range(len(PROMPTS))])
scopes = st.sampled_from([SCOPES[0], SCOPES[0], SCOPES[0], *SCOPES])
seconds = st.sampled_from([None, None, 5, 60])
responses = st.binary(min_size=1, max_size=8) | st.sampled_from([b"x" * 5000, b"a\r\nb"])


class Remembering(RememberingWorld):
    def known_ids(self) -> list[bytes]:
        return [one.id for one in self.model.known.values()]

    @initialize(sliding=st.booleans())
    def begin(self, sliding: bool) -> None:  # noqa: FBT001 - hypothesis passes it
        self.change_policy(sliding=sliding)
        for id_ in DOCUMENTS:
            self.write_document(id_, None)

    # -- remembering ------------------------------------------------------------------------------

    @rule(
        number=prompts, scope=scopes, response=responses, upper=st.booleans(), turned=st.booleans()
    )  # fmt: skip
    def remember(self, number, scope, response, upper, turned) -> None:  # type: ignore[no-untyped-def]
        prompt = PROMPTS[number].upper() if upper else f"  {PROMPTS[number]} "
        self.put(number, scope, response, prompt=prompt, turned=turned)

    @rule(number=prompts, scope=scopes, life=st.sampled_from([5, 60]))
    def remember_for_a_while(self, number, scope, life) -> None:  # type: ignore[no-untyped-def]
        self.put(number, scope, b"for a while", life=life)

    @precondition(lambda self: self.model.documents)
    @rule(number=prompts, scope=scopes, chosen=st.integers(1, 7), life=seconds)
    def remember_what_was_made_from_documents(self, number, scope, chosen, life) -> None:  # type: ignore[no-untyped-def]
        there = sorted(self.model.documents)
        made_from = {there[bit % len(there)] for bit in range(3) if chosen >> bit & 1}
        self.put(number, scope, b"made from documents", life=life, made_from=made_from)

    @rule(number=prompts, scope=scopes, made_from=st.sets(st.sampled_from(DOCUMENTS), min_size=1))
    def remember_what_may_not_be_made(self, number, scope, made_from) -> None:  # type: ignore[no-untyped-def]
        self.put(number, scope, b"may not be", made_from=made_from)

    def put(  # type: ignore[no-untyped-def]
        self,
        number,
        scope,
        response,
        *,
        prompt=None,
        turned=False,
        life=None,
        made_from=frozenset(),
    ) -> None:
        words = [b"VECTOR.REMEMBER", b"i", (prompt or PROMPTS[number]).encode(), response, b"FP32"]
        words += [VECTORS[number].tobytes(), *scope_words(scope, turned=turned)]
        if life is not None:
            words += [b"EX", b"%d" % life]
        if made_from:
            words += [b"DEPENDS", b"docs", b"%d" % len(made_from), *made_from]
        reply = self.call(*words)
        if made_from - self.model.documents.keys():
            assert isinstance(reply, hiredis.ReplyError)
            assert "DEPENDS" in str(reply)
            return
        assert reply not in self.known_ids()
        lifetime = 0 if life is None else 1000 * life
        self.model.driven_out.pop((frozenset(scope), number), None)
        self.model.known[frozenset(scope), number] = Known(
            reply,
            response,
            self.now_ms() + lifetime if lifetime else float("inf"),
            lifetime if self.sliding else 0,
            frozenset(made_from),
        )

    @rule(number=prompts, scope=scopes)
    def forget_by_id(self, number: int, scope: tuple[tuple[bytes, bytes], ...]) -> None:
        known = self.model.known.pop((frozenset(scope), number), None)
        gone = known or self.model.driven_out.pop((frozenset(scope), number), None)
        id_ = b"0123456789abcdef" if gone is None else gone.id
        assert self.call(b"VECTOR.FORGET", b"i", b"ID", id_) == (known is not None)

    @rule(number=prompts)
    def forget_by_prompt(self, number: int) -> None:
        keys = [key for key in self.model.known if key[1] == number]
        reply = self.call(b"VECTOR.FORGET", b"i", b"PROMPT", PROMPTS[number].title().encode())
        assert reply == len(keys)
        self.forgotten(lambda _, its: its == number)

    @rule(scope=st.sampled_from(SCOPES[1:]))
    def forget_by_scope(self, scope: tuple[tuple[bytes, bytes], ...]) -> None:
        keys = [key for key in self.model.known if set(scope) <= key[0]]
        assert self.call(b"VECTOR.FORGET", b"i", *scope_words(scope)) == len(keys)
        self.forgotten(lambda its, _: set(scope) <= its)

    def forgotten(self, matches: Callable[[Scope, int], bool]) -> None:
        for there in (self.model.known, self.model.driven_out):
            for key in [key for key in there if matches(*key)]:
                del there[key]

    @rule()
    def drive_out(self) -> None:
        """A budget that nothing fits into, for a moment."""
        self.policy(b"REMEMBERBYTES", b"1")
        self.policy(b"REMEMBERBYTES", b"0")
        self.model.driven_out |= self.model.known
        self.model.known.clear()

    # -- recalling --------------------------------------------------------------------------------

    @rule(number=prompts, scope=scopes, turned=st.booleans())
    def recall_exactly(self, number, scope, turned) -> None:  # type: ignore[no-untyped-def]
        self.recall_one(number, scope, turned=turned)

    def recall_one(self, number, scope, *, turned=False) -> None:  # type: ignore[no-untyped-def]
        """With a threshold that nothing else reaches."""
        reply, info = self.call(
            b"VECTOR.RECALL", b"i", PROMPTS[number].encode(), b"FP32", VECTORS[number].tobytes(),
            b"THRESHOLD", b"1", *scope_words(scope, turned=turned), b"WITHINFO", protocol=3,
        )  # fmt: skip
        known = self.model.known.get((frozenset(scope), number))
        if known is None or known.is_quarantined:
            assert reply is None
            return
        assert reply == known.response
        assert (info[b"id"], info[b"match"]) == (known.id, b"exact")
        self.served(frozenset(scope), number)

    @invariant()
    def all_is_as_it_should_be(self) -> None:
        """Each prompt in each scope, where a near one would not do."""
        for scope in SCOPES:
            for number in range(len(PROMPTS)):
                self.recall_one(number, scope)

    @rule(number=prompts, scope=scopes, threshold=st.sampled_from([-1.0, 0.0, 0.9, 0.97]))
    def recall_near(self, number, scope, threshold) -> None:  # type: ignore[no-untyped-def]
        reply, info = self.call(
            b"VECTOR.RECALL", b"i", PROMPTS[number].encode(), b"FP32", VECTORS[number].tobytes(),
            b"THRESHOLD", b"%g" % threshold, *scope_words(scope), b"WITHINFO", protocol=3,
        )  # fmt: skip
        key = frozenset(scope)
        near = self.near(key, number)
        if number in near:
            assert (reply, info[b"match"]) == (self.model.known[key, number].response, b"exact")
            self.served(key, number)
            return
        best = max(near.values(), default=-2.0)
        if best < threshold:
            assert reply is None
            if near:
                assert np.isclose(info[b"nearest"][b"score"], best, atol=1e-5)
            return
        (found,) = [other for other in near if self.model.known[key, other].id == info[b"id"]]
        assert np.isclose(near[found], best, atol=1e-5)
        assert np.isclose(info[b"score"], best, atol=1e-5)
        assert reply == self.model.known[key, found].response
        self.served(key, found)

    # -- feedback ---------------------------------------------------------------------------------

    @precondition(lambda self: self.model.known)
    @rule(pick=st.integers(0, 3), good=st.booleans())
    def feedback(self, pick: int, good: bool) -> None:  # noqa: FBT001 - hypothesis passes it
        known_ones = list(self.model.known.items())
        (_, number), known = known_ones[pick % len(known_ones)]
        reply = self.call(
            b"VECTOR.FEEDBACK", b"i", known.id, b"GOOD" if good else b"BAD",
            b"PROMPT", PROMPTS[number].encode(),
        )  # fmt: skip
        assert reply == b"OK"
        known.is_quarantined |= not good

    @rule(id_=st.sampled_from([b"0123456789abcdef", b"nobody"]))
    def feedback_on_nothing(self, id_: bytes) -> None:
        reply = self.call(b"VECTOR.FEEDBACK", b"i", id_, b"BAD")
        assert isinstance(reply, hiredis.ReplyError)

    # -- documents --------------------------------------------------------------------------------

    @rule(id_=st.sampled_from(DOCUMENTS), life=seconds)
    def write_a_document(self, id_: bytes, life: int | None) -> None:
        self.write_document(id_, life)

    def write_document(self, id_: bytes, life: int | None) -> None:
        words = [b"VECTOR.ADD", b"docs", id_, b"VALUES", b"2", b"1", b"0"]
        self.call(*words, *([] if life is None else [b"EX", b"%d" % life]))
        self.model.change(id_)
        self.model.documents[id_] = Document(
            float("inf") if life is None else self.now_ms() + 1000 * life
        )

    @rule(id_=st.sampled_from(DOCUMENTS))
    def describe_document(self, id_: bytes) -> None:
        reply = self.call(b"VECTOR.SETATTR", b"docs", id_, b'{"n": 1}')
        assert reply == (id_ in self.model.documents)
        self.model.change(id_)

    @rule(ids=st.sets(st.sampled_from(DOCUMENTS), min_size=1))
    def delete_documents(self, ids: set[bytes]) -> None:
        there = ids & self.model.documents.keys()
        assert self.call(b"VECTOR.DEL", b"docs", *ids) == len(there)
        for id_ in there:
            self.model.change(id_)
            del self.model.documents[id_]

    @rule(id_=st.sampled_from(DOCUMENTS))
    def write_that_does_not_take_place(self, id_: bytes) -> None:
        condition = b"NX" if id_ in self.model.documents else b"XX"
        words = (b"VECTOR.ADD", b"docs", id_, b"VALUES", b"2", b"1", b"0", condition)
        assert self.call(*words) is None

    @precondition(lambda self: self.model.documents)
    @rule()
    def drop_the_documents(self) -> None:
        assert self.call(b"VECTOR.DROP", b"docs") == 1
        assert self.call(b"VECTOR.CREATE", b"docs", b"DIM", b"2") == b"OK"
        for id_ in list(self.model.documents):
            self.model.change(id_)
            del self.model.documents[id_]

    # -- the rest of the world --------------------------------------------------------------------

    @rule(passed=st.sampled_from([0.001, 1.0, 4.999, 30.0, 100.0]))
    def time_passes(self, passed: float) -> None:
        self.let_pass(passed)

    @rule(number=prompts, scope=scopes)
    def hit_within_its_life(self, number, scope) -> None:  # type: ignore[no-untyped-def]
        """Whether it outlives that is for the invariant to see."""
        self.put(number, scope, b"for a while", life=5)
        self.let_pass(3.0)
        self.recall_one(number, scope)
        self.let_pass(3.0)

    def let_pass(self, passed: float) -> None:
        self.clock.advance(passed)
        self.model.pass_time(self.now_ms())
        # It is found out when somebody looks, or some time.
        self.call(b"VECTOR.CARD", b"docs")

    @rule(sliding=st.booleans())
    def change_sliding(self, sliding: bool) -> None:  # noqa: FBT001 - hypothesis passes it
        self.change_policy(sliding=sliding)

    def change_policy(self, *, sliding: bool) -> None:
        self.policy(b"SLIDING", b"ON" if sliding else b"OFF")
        self.sliding = sliding

    @rule()
    def start_again(self) -> None:
        self.stop()
        self.start()
        self.model.driven_out.clear()

    @rule()
    def crash_and_start_again(self) -> None:
        # Of these the disk may know another end than the dictionary.
        for key in [key for key, one in self.model.known.items() if one.is_renewed]:
            id_ = self.model.known.pop(key).id
            assert self.call(b"VECTOR.FORGET", b"i", b"ID", id_) == 1
        self.crash()
        for (scope, number), known in self.model.driven_out.items():
            reply = self.call(
                b"VECTOR.RECALL", b"i", PROMPTS[number].encode(),
                b"FP32", VECTORS[number].tobytes(), b"MAXERROR", b"0", *scope_words(tuple(scope)),
            )  # fmt: skip
            assert reply is None or (reply == known.response and not known.is_quarantined)
            self.call(b"VECTOR.FORGET", b"i", b"ID", known.id)
        self.model.driven_out.clear()

    @rule()
    def count(self) -> None:
        told = self.call(b"VECTOR.CACHE", b"STATS", b"i", protocol=3)[b"remembered"]
        assert told[b"entries"] >= len(self.model.known)
        assert told[b"scopes"] >= len({scope for scope, _ in self.model.known})


TestRemembering = Remembering.TestCase
TestRemembering.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
