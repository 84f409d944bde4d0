"""Remembered responses against a dictionary: whatever is done to them, in whatever order."""

from __future__ import annotations

import hiredis
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from service.remembering_world import (
    DOCUMENTS,
    PROMPTS,
    SCOPES,
    VECTORS,
    Document,
    Known,
    RememberingWorld,
    scope_words,
)

prompts = st.integers(0, len(PROMPTS) - 1)
scopes = st.sampled_from(SCOPES)
seconds = st.sampled_from([None, None, 5, 60])
documents = st.sets(st.sampled_from(DOCUMENTS), max_size=2)
responses = st.binary(min_size=1, max_size=8) | st.sampled_from([b"x" * 5000, b"a\r\nb"])


class Remembering(RememberingWorld):
    def known_ids(self) -> list[bytes]:
        return [one.id for one in self.model.known.values()]

    # -- remembering ------------------------------------------------------------------------------

    @rule(
        number=prompts, scope=scopes, response=responses, life=seconds, made_from=documents,
        upper=st.booleans(), turned=st.booleans(),
    )  # fmt: skip
    def remember(self, number, scope, response, life, made_from, upper, turned) -> None:  # type: ignore[no-untyped-def]
        prompt = PROMPTS[number].upper() if upper else f"  {PROMPTS[number]} "
        words = [b"VECTOR.REMEMBER", b"i", prompt.encode(), response, b"FP32"]
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
        id_ = b"0123456789abcdef" if known is None else known.id
        assert self.call(b"VECTOR.FORGET", b"i", b"ID", id_) == (known is not None)

    @rule(number=prompts)
    def forget_by_prompt(self, number: int) -> None:
        keys = [key for key in self.model.known if key[1] == number]
        reply = self.call(b"VECTOR.FORGET", b"i", b"PROMPT", PROMPTS[number].title().encode())
        assert reply == len(keys)
        for key in keys:
            del self.model.known[key]

    @rule(scope=st.sampled_from(SCOPES[1:]))
    def forget_by_scope(self, scope: tuple[tuple[bytes, bytes], ...]) -> None:
        keys = [key for key in self.model.known if set(scope) <= key[0]]
        assert self.call(b"VECTOR.FORGET", b"i", *scope_words(scope)) == len(keys)
        for key in keys:
            del self.model.known[key]

    # -- recalling --------------------------------------------------------------------------------

    @rule(number=prompts, scope=scopes, turned=st.booleans())
    def recall_exactly(self, number, scope, turned) -> None:  # type: ignore[no-untyped-def]
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

    @rule(number=prompts, scope=scopes, good=st.booleans())
    def feedback(self, number, scope, good) -> None:  # type: ignore[no-untyped-def]
        known = self.model.known.get((frozenset(scope), number))
        id_ = b"0123456789abcdef" if known is None else known.id
        reply = self.call(
            b"VECTOR.FEEDBACK", b"i", id_, b"GOOD" if good else b"BAD",
            b"PROMPT", PROMPTS[number].encode(),
        )  # fmt: skip
        if known is None:
            assert isinstance(reply, hiredis.ReplyError)
            return
        assert reply == b"OK"
        known.is_quarantined |= not good

    # -- documents --------------------------------------------------------------------------------

    @rule(id_=st.sampled_from(DOCUMENTS), life=seconds)
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
        self.clock.advance(passed)
        self.model.pass_time(self.now_ms())
        # It is found out when somebody looks, or some time.
        self.call(b"VECTOR.CARD", b"docs")

    @rule(sliding=st.booleans())
    def change_policy(self, sliding: bool) -> None:  # noqa: FBT001 - hypothesis passes it
        self.policy(b"SLIDING", b"ON" if sliding else b"OFF")
        self.sliding = sliding

    @rule()
    def start_again(self) -> None:
        self.stop()
        self.start()

    @rule()
    def count(self) -> None:
        told = self.call(b"VECTOR.CACHE", b"STATS", b"i", protocol=3)[b"remembered"]
        assert told[b"entries"] >= len(self.model.known)
        assert told[b"scopes"] >= len({scope for scope, _ in self.model.known})


TestRemembering = Remembering.TestCase
TestRemembering.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
