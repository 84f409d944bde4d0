"""What holds for every provider: the real clients against stand-ins, well and badly behaved."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from pyrope.llm.adapter import MOST_REPLY_BYTES, Adapter, Endpoint, T
from pyrope.llm.gemini import GeminiProvider
from pyrope.llm.openai_compatible import OpenAIProvider
from pyrope.llm.provider import Completion, Failure, Prompt, ProviderError
from pyrope.retry_after import MOST_RETRY_AFTER_S
from pyrope.testing.clock import ManualClock
from pyrope.testing.provider_servers import (
    Answer,
    BreakOff,
    GeminiServer,
    Hang,
    HangUp,
    NoCandidates,
    OpenAIServer,
    Outcome,
    Problem,
    ProviderServer,
    Raw,
    Refused,
    always,
    answer_json,
)

KEY = "kEy-7391-of-the-test"
QUESTION = "how do I bake a marzipan cake"


class Same(BaseModel):
    same: bool


PROMPT = Prompt(system="You compare.", user=QUESTION, schema=Same, max_tokens_out=50)


@dataclass(frozen=True)
class Kind:
    """A provider, and its stand-in."""

    adapter: type[Adapter[Any]]
    server: type[ProviderServer]
    missing_key: int


KINDS = [Kind(GeminiProvider, GeminiServer, 400), Kind(OpenAIProvider, OpenAIServer, 401)]


@pytest.fixture(params=KINDS, ids=["gemini", "openai"])
def kind(request: pytest.FixtureRequest) -> Kind:
    found: Kind = request.param
    return found


async def at_once(function: Callable[[], T]) -> T:
    """Stands for a thread."""
    return function()


def adapter_of(kind: Kind, base_url: str, **changes: Any) -> Adapter[Any]:
    endpoint: dict[str, Any] = {"model": "m1", "base_url": base_url, "api_key": SecretStr(KEY)}
    endpoint |= changes
    build: Any = kind.adapter
    made: Adapter[Any] = build(Endpoint(**endpoint), clock=ManualClock(), run=at_once)
    return made


@asynccontextmanager
async def standing(
    kind: Kind, outcome: Outcome | None = None, **changes: Any
) -> AsyncIterator[tuple[ProviderServer, Adapter[Any]]]:
    """A stand-in that always answers this, and a started adapter; nothing is left of either."""
    server = kind.server(chat=None if outcome is None else always(outcome))
    await server.start()
    adapter = adapter_of(kind, server.base_url, **changes)
    await adapter.start()
    try:
        yield server, adapter
    finally:
        await adapter.close()
        await server.stop()


async def failure(
    kind: Kind, outcome: Outcome, prompt: Prompt = PROMPT, **changes: Any
) -> ProviderError:
    """What asking comes to."""
    async with standing(kind, outcome, **changes) as (_, adapter):
        with pytest.raises(ProviderError) as caught:
            await adapter.complete(prompt)
    return caught.value


# -- answers ------------------------------------------------------------------------------------


async def test_a_completion_is_the_text_and_the_usage_that_the_provider_reports(
    kind: Kind,
) -> None:
    answer = Answer('{"same": true}', tokens_in=321, tokens_out=12)
    async with standing(kind, answer) as (server, adapter):
        assert await adapter.complete(PROMPT) == Completion('{"same": true}', 321, 12)
        await adapter.complete(PROMPT)
        assert (server.tokens_in, server.tokens_out) == (642, 24)


async def test_thoughts_are_charged_as_what_is_written(kind: Kind) -> None:
    answer = Answer("{}", tokens_in=10, tokens_out=5, tokens_thought=40)
    async with standing(kind, answer) as (server, adapter):
        assert (await adapter.complete(PROMPT)).tokens_out == 45 == server.tokens_out


async def test_an_answer_without_usage_costs_nothing(kind: Kind) -> None:
    async with standing(kind, Answer("{}", usage=False)) as (_, adapter):
        assert await adapter.complete(PROMPT) == Completion("{}", 0, 0)


async def test_the_request_holds_the_prompt_its_schema_and_its_bound(kind: Kind) -> None:
    async with standing(kind, thinking_tokens=7) as (server, adapter):
        await adapter.complete(PROMPT)
        [asked] = server.asked
        assert (asked.model, asked.system, asked.user) == ("m1", PROMPT.system, PROMPT.user)
        assert asked.max_tokens_out == 57
        assert asked.schema == {
            "type": "object",
            "properties": {"same": {"type": "boolean"}},
            "required": ["same"],
            "additionalProperties": False,
        }
        assert (adapter.name, adapter.model) == (kind.server.__name__[:6].lower(), "m1")


@pytest.mark.parametrize("form", ["json_object", "text"])
async def test_where_the_api_is_not_given_the_schema_the_instructions_have_it(
    kind: Kind, form: str
) -> None:
    async with standing(kind, response_format=form) as (server, adapter):
        await adapter.complete(PROMPT)
        [asked] = server.asked
        assert asked.schema is None
        assert asked.system.startswith(PROMPT.system)
        assert '"properties":{"same":{"type":"boolean"}}' in asked.system


async def test_a_fence_around_json_is_taken_off_only_where_json_was_asked_for_in_words(
    kind: Kind,
) -> None:
    fenced = '```json\n{"same": true}\n```'
    for form, text in (("text", '{"same": true}'), ("json_object", fenced)):
        async with standing(kind, Answer(fenced), response_format=form) as (_, adapter):
            assert (await adapter.complete(PROMPT)).text == text


async def test_what_the_model_writes_is_not_validated_here(kind: Kind) -> None:
    async with standing(kind, Answer("no JSON at all \x00 \U0001f9c1")) as (_, adapter):
        assert (await adapter.complete(PROMPT)).text == "no JSON at all \x00 \U0001f9c1"


async def test_the_key_is_shown_to_the_endpoint_and_a_wrong_one_is_unauthorised(
    kind: Kind,
) -> None:
    async with standing(kind) as (server, adapter):
        server.key = KEY
        await adapter.complete(PROMPT)
        server.key = "another"
        with pytest.raises(ProviderError) as caught:
            await adapter.complete(PROMPT)
        assert caught.value.failure is Failure.UNAUTHORISED
        assert f"answered {kind.missing_key}" in str(caught.value)


async def test_an_endpoint_that_wants_no_key_is_not_shown_one_of_the_environment(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "of the environment")
    monkeypatch.setenv("OPENAI_API_KEY", "of the environment")
    async with standing(kind, api_key=None) as (server, adapter):
        await adapter.complete(PROMPT)
        shown = " ".join(server.asked[0].headers.values())
        assert "of the environment" not in shown


async def test_several_calls_at_a_time_keep_to_their_own_answers(kind: Kind) -> None:
    async with standing(kind) as (server, adapter):
        server.chat = lambda asked: answer_json({"user": asked.user})
        prompts = [Prompt("s", f"question {number}", Same, 10) for number in range(12)]
        answers = await asyncio.gather(*map(adapter.complete, prompts))
        assert [json.loads(answer.text)["user"] for answer in answers] == [
            prompt.user for prompt in prompts
        ]


# -- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, Failure.INVALID),
        (401, Failure.UNAUTHORISED),
        (403, Failure.UNAUTHORISED),
        (404, Failure.INVALID),
        (408, Failure.UNAVAILABLE),
        (422, Failure.INVALID),
        (429, Failure.THROTTLED),
        (500, Failure.UNAVAILABLE),
        (503, Failure.UNAVAILABLE),
    ],
)
async def test_each_status_is_a_failure_of_its_kind_after_one_request(
    kind: Kind, status: int, expected: Failure
) -> None:
    async with standing(kind, Problem(status)) as (server, adapter):
        with pytest.raises(ProviderError) as caught:
            await adapter.complete(PROMPT)
        assert caught.value.failure is expected
        assert (caught.value.retry_after_s, caught.value.tokens_in) == (None, 0)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        (formatdate(1_700_000_090, usegmt=True), 90.0),
        ("99999999999", MOST_RETRY_AFTER_S),
        ("soon", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_what_a_provider_asks_to_wait_comes_with_the_error(
    kind: Kind, status: int, header: str, seconds: float | None
) -> None:
    assert (await failure(kind, Problem(status, retry_after=header))).retry_after_s == seconds


async def test_tokens_are_charged_where_a_refusal_reports_them(kind: Kind) -> None:
    refused = await failure(kind, Refused(tokens_in=70))
    assert (refused.failure, refused.tokens_in, refused.tokens_out) == (Failure.REFUSED, 70, 0)
    stopped = await failure(kind, Answer("x", tokens_in=70, tokens_out=3, finish="safety"))
    assert (stopped.failure, stopped.tokens_in, stopped.tokens_out) == (Failure.REFUSED, 70, 3)


async def test_a_reply_that_is_cut_off_by_its_bound_is_malformed_and_charged(kind: Kind) -> None:
    cut = await failure(kind, Answer('{"sa', tokens_in=70, tokens_out=50, finish="length"))
    assert (cut.failure, cut.tokens_in, cut.tokens_out) == (Failure.MALFORMED, 70, 50)
    assert "50 tokens" in str(cut)


async def test_no_candidates_are_no_answer_but_cost_what_is_reported(kind: Kind) -> None:
    empty = await failure(kind, NoCandidates(tokens_in=70))
    assert (empty.failure, empty.tokens_in) == (Failure.UNAVAILABLE, 70)


@pytest.mark.parametrize(
    "outcome",
    [
        HangUp(),
        BreakOff(Answer("{}"), share=0),
        BreakOff(Answer("{}")),
        BreakOff(Problem(500)),
        Raw(b""),
        Raw(b"{"),
        Raw(b"\xff\xfe\x00"),
        Raw(b"[]"),
        Raw(b'"text"'),
        Raw(b"<html>busy</html>", headers={"Content-Type": "text/html"}),
        Raw(b"null"),
        Raw(b"{}", status=204),
        Raw(b'{"error": "' + b"x" * 1000 + b'"}', status=500),
        Raw(b"not even JSON", status=502),
        Raw(b"[[", status=500),
    ],
    ids=repr,
)
async def test_what_is_no_reply_is_unavailable(kind: Kind, outcome: Outcome) -> None:
    assert (await failure(kind, outcome)).failure is Failure.UNAVAILABLE


async def test_a_reply_of_a_megabyte_is_not_read_to_its_end(kind: Kind) -> None:
    compressed = await failure(kind, Raw(b"compressed", headers={"Content-Encoding": "gzip"}))
    assert compressed.failure is Failure.MALFORMED
    large = await failure(kind, Answer("x" * MOST_REPLY_BYTES))
    assert large.failure is Failure.MALFORMED
    assert "too large" in str(large)


@pytest.mark.parametrize(
    "body",
    [
        b'{"candidates": [' + b"{}," * 30_000 + b'{}], "choices": []}',
        b'{"error": {"details": [' + b"{}," * 30_000 + b"{}]}}",
        b"[" * 60_000,
    ],
    ids=["candidates", "details", "depth"],
)
async def test_a_reply_that_would_take_long_to_parse_is_not_parsed(kind: Kind, body: bytes) -> None:
    assert len(body) < MOST_REPLY_BYTES
    intricate = await failure(kind, Raw(body))
    assert intricate.failure is Failure.MALFORMED
    assert "too intricate" in str(intricate)


@pytest.mark.parametrize("page", [b"{" * 10_000, b"x" * (MOST_REPLY_BYTES + 1)])
@pytest.mark.parametrize(
    ("status", "expected"), [(503, Failure.UNAVAILABLE), (429, Failure.THROTTLED)]
)
async def test_the_page_that_a_proxy_sends_does_not_hide_the_status(
    kind: Kind, page: bytes, status: int, expected: Failure
) -> None:
    headers = {"content-type": "text/html", "retry-after": "7"}
    refused = await failure(kind, Raw(page, status, headers))
    assert (refused.failure, refused.retry_after_s) == (expected, 7.0)
    assert str(status) in str(refused)
    compressed = await failure(kind, Raw(page, status, headers | {"content-encoding": "gzip"}))
    assert compressed.failure is expected


@pytest.mark.parametrize("tokens", [-1, 10**12, 1.5])
async def test_usage_that_no_provider_reports_is_not_charged(kind: Kind, tokens: Any) -> None:
    absurd = await failure(kind, Answer("{}", tokens_in=tokens, tokens_out=1))
    assert (absurd.failure, absurd.tokens_in) == (Failure.UNAVAILABLE, 0)


async def test_an_endpoint_that_hangs_is_given_up_when_the_time_is_over(kind: Kind) -> None:
    async with standing(kind, Hang(), timeout_s=0.05) as (server, adapter):
        with pytest.raises(ProviderError, match=r"within 0\.05 s") as caught:
            await adapter.complete(PROMPT)
        assert caught.value.failure is Failure.UNAVAILABLE
        await server.http.all_closed()


async def test_an_endpoint_that_sends_its_reply_in_drops_is_given_up_too(kind: Kind) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        try:
            while not writer.is_closing():
                writer.write(b" ")
                await asyncio.sleep(0.01)
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as dripping:
        port = dripping.sockets[0].getsockname()[1]
        adapter = adapter_of(kind, f"http://127.0.0.1:{port}", timeout_s=0.1)
        await adapter.start()
        with pytest.raises(ProviderError) as caught:
            await adapter.complete(PROMPT)
        assert caught.value.failure is Failure.UNAVAILABLE
        await adapter.close()
        # One more breath, for the server's side to see that the connection has ended.
        await asyncio.sleep(0.03)


async def test_an_endpoint_that_is_not_there_is_unavailable(kind: Kind) -> None:
    async with standing(kind) as (server, adapter):
        await server.stop()
        with pytest.raises(ProviderError) as caught:
            await adapter.complete(PROMPT)
        assert caught.value.failure is Failure.UNAVAILABLE


async def test_a_redirect_is_not_followed_as_it_would_carry_the_key_elsewhere(kind: Kind) -> None:
    elsewhere = kind.server()
    await elsewhere.start()
    location = {"Location": f"{elsewhere.base_url}/m1:generateContent"}
    redirected = await failure(kind, Raw(b"", status=307, headers=location))
    assert redirected.failure is Failure.INVALID
    assert (elsewhere.asked, elsewhere.http.connections_total) == ([], 0)
    await elsewhere.stop()


_SCRAPS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "candidates",
                    "choices",
                    "code",
                    "content",
                    "details",
                    "error",
                    "finishReason",
                    "finish_reason",
                    "message",
                    "parts",
                    "promptFeedback",
                    "retryDelay",
                    "status",
                    "text",
                    "type",
                    "usage",
                    "usageMetadata",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(body=_SCRAPS, status=st.sampled_from([200, 200, 201, 400, 404, 429, 500]))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_json_comes_is_a_completion_or_a_provider_error(
    kind: Kind, body: object, status: int
) -> None:
    async with standing(kind, Raw(json.dumps(body).encode(), status=status)) as (_, adapter):
        outcome: Completion | ProviderError
        try:
            outcome = await adapter.complete(PROMPT)
        except ProviderError as error:
            outcome = error
        assert outcome.tokens_in >= 0
        assert isinstance(outcome, ProviderError) or status in {200, 201}


# -- secrets ------------------------------------------------------------------------------------


async def test_neither_key_nor_prompt_is_in_any_error_or_log(
    kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    words = f"{KEY} was shown, and {QUESTION} was asked"
    outcomes: list[Outcome] = [
        *(Problem(status, words, code=KEY) for status in (400, 401, 404, 429, 500)),
        Raw(words.encode(), status=500, headers={"X-Echo": words}),
        Raw(words.encode(), status=200),
        Raw(json.dumps({"error": {"status": KEY, "code": QUESTION}}).encode(), status=400),
        BreakOff(Answer(words)),
        Answer(words, finish="length"),
        Refused(words),
        HangUp(),
    ]
    seen: list[str] = []
    async with standing(kind) as (server, adapter):
        seen.append(repr(adapter) + repr(adapter.endpoint))
        for outcome in outcomes:
            server.chat = always(outcome)
            with pytest.raises(ProviderError) as caught:
                await adapter.complete(PROMPT)
            error = caught.value
            seen += [str(error), repr(error), *map(str, error.args)]
            seen.append("".join(traceback.format_exception(error)))
            assert error.__context__ is None
            assert error.__cause__ is None
        server.chat = always(Answer("{}"))
        await adapter.complete(PROMPT)
    seen += [record.getMessage() + str(record.__dict__) for record in caplog.records]
    for text in seen:
        assert KEY not in text
        assert QUESTION not in text


# -- life and death -----------------------------------------------------------------------------


async def test_starting_asks_nobody_and_opens_nothing(kind: Kind) -> None:
    async with standing(kind) as (server, _):
        assert (server.asked, server.http.connections_total) == ([], 0)


async def test_starting_twice_and_asking_without_a_start_are_mistakes(kind: Kind) -> None:
    adapter = adapter_of(kind, "http://127.0.0.1:9")
    with pytest.raises(RuntimeError, match="not been started"):
        await adapter.complete(PROMPT)
    await adapter.start()
    with pytest.raises(RuntimeError, match="already"):
        await adapter.start()
    await adapter.close()


async def test_closing_is_idempotent_and_works_before_a_start(kind: Kind) -> None:
    adapter = adapter_of(kind, "http://127.0.0.1:9")
    await adapter.close()
    await adapter.start()
    await adapter.close()
    await adapter.close()


async def test_a_client_that_cannot_be_made_is_a_provider_error(kind: Kind) -> None:
    async def no_thread(_function: Callable[[], T]) -> T:
        raise ImportError(f"something about {KEY}")

    build: Any = kind.adapter
    adapter = build(Endpoint("m1", api_key=SecretStr(KEY)), clock=ManualClock(), run=no_thread)
    with pytest.raises(ProviderError, match=r"can be made: ImportError$") as caught:
        await adapter.start()
    assert caught.value.failure is Failure.INVALID
    await adapter.close()


async def test_closing_ends_the_connections_of_calls_that_went_well(kind: Kind) -> None:
    async with standing(kind) as (server, adapter):
        await adapter.complete(PROMPT)
        assert server.http.connections_current == 1
        await adapter.close()
        await server.http.all_closed()


async def test_a_cancelled_call_leaves_nothing(kind: Kind) -> None:
    arrived = asyncio.Event()

    async def hang(_asked: object) -> Outcome:
        arrived.set()
        return Hang()

    async with standing(kind) as (server, adapter):
        server.chat = hang
        tasks = asyncio.all_tasks()
        call = asyncio.create_task(adapter.complete(PROMPT))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.http.all_closed()
        await asyncio.sleep(0)  # for the stand-in's own task of the connection
        assert asyncio.all_tasks() == tasks
        server.chat = always(Answer("{}"))
        assert (await adapter.complete(PROMPT)).text == "{}"


async def test_closing_in_the_middle_of_a_call_ends_it(kind: Kind) -> None:
    arrived = asyncio.Event()

    async def hang(_asked: object) -> Outcome:
        arrived.set()
        return Hang()

    async with standing(kind) as (server, adapter):
        server.chat = hang
        call = asyncio.create_task(adapter.complete(PROMPT))
        await arrived.wait()
        await adapter.close()
        with pytest.raises(ProviderError) as caught:
            await call
        assert caught.value.failure is Failure.UNAVAILABLE
        await server.http.all_closed()


def open_sockets() -> int:
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the descriptor of the listing itself
            count += str(link.readlink()).startswith("socket:")
    return count


def test_one_adapter_works_on_three_loops_in_turn_and_leaves_nothing_on_any(kind: Kind) -> None:
    adapter = adapter_of(kind, "http://127.0.0.1:9")

    async def once() -> None:
        server = kind.server(chat=always(Answer("{}")))
        await server.start()
        found: Any = adapter
        found.endpoint = Endpoint("m1", server.base_url, SecretStr(KEY))
        await adapter.start()
        assert (await adapter.complete(PROMPT)).text == "{}"
        await adapter.close()
        await server.http.all_closed()
        await server.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(once())  # what is made once and for all is not to be counted
    gc.collect()
    before = (open_sockets(), threading.active_count())
    for _ in range(3):
        asyncio.run(once())
    gc.collect()
    assert (open_sockets(), threading.active_count()) == before
