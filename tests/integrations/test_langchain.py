"""LangChain's real models and messages with a memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult, Generation
from pydantic import Field

from pyrope.client import Client
from pyrope.integrations import RememberOptions, ResponseCache
from pyrope.integrations.langchain import PyropeCache
from servers import RunningServer, free_port

INDEX = "answers"
NEAR = ("How do I reset my password?", "How can I reset my password?")


class Model(BaseChatModel):
    """Says what it is told to, and counts."""

    answer: Callable[[int], AIMessage | Exception]
    name: str = "model"
    asked: list[Any] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "test"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"name": self.name}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.asked.append(messages)
        told = self.answer(len(self.asked))
        if isinstance(told, Exception):
            raise told
        return ChatResult(generations=[ChatGeneration(message=told)])


def numbered(number: int) -> AIMessage:
    return AIMessage(
        f"answer {number}",
        response_metadata={"finish_reason": "stop", "model_name": "m"},
        usage_metadata={"input_tokens": 3, "output_tokens": 5, "total_tokens": 8},
    )


def ending(**metadata: str) -> AIMessage:
    return AIMessage("an answer", response_metadata=metadata)


@pytest.fixture
def langchain(cache: ResponseCache) -> PyropeCache:
    return PyropeCache(cache)


@pytest.fixture
async def alangchain(memory: Client[str], server: RunningServer) -> AsyncIterator[PyropeCache]:
    assert memory.list() == [INDEX]
    options = RememberOptions(threshold=0.9)
    async with ResponseCache(INDEX, options, port=server.port) as cache:
        yield PyropeCache(cache)


def test_a_chat_model_is_asked_once(langchain: PyropeCache) -> None:
    model = Model(answer=numbered, cache=langchain)
    first, again, near = (model.invoke(text) for text in (NEAR[0], NEAR[0], NEAR[1]))
    assert first.content == again.content == near.content == "answer 1"
    assert len(model.asked) == 1
    assert isinstance(near, AIMessage)
    assert near.response_metadata == {"finish_reason": "stop", "model_name": "m"}
    # Else LangGraph would take the second answer for the first one, changed.
    assert near.id is None


def test_whatever_an_answer_depends_on_keeps_it_apart(langchain: PyropeCache) -> None:
    model = Model(answer=numbered, cache=langchain)
    talks: list[list[BaseMessage]] = [
        [HumanMessage(NEAR[0])],
        [SystemMessage("Be kind."), HumanMessage(NEAR[0])],
        [HumanMessage("Hello"), AIMessage("Hello!"), HumanMessage(NEAR[0])],
        [HumanMessage(NEAR[0], name="ann")],
    ]
    for _ in range(2):
        for number, talk in enumerate(talks):
            assert model.invoke(talk).content == f"answer {number + 1}"
    other = Model(answer=lambda _: AIMessage("another's"), name="other", cache=langchain)
    assert other.invoke(NEAR[0]).content == "another's"
    assert model.invoke(NEAR[0], stop=["x"]).content == "answer 5"


def test_text_in_pieces_is_text(langchain: PyropeCache) -> None:
    model = Model(answer=numbered, cache=langchain)
    pieces = HumanMessage([{"type": "text", "text": NEAR[0]}])
    assert model.invoke(NEAR[0]).content == model.invoke([pieces]).content


def test_what_ends_with_something_else_is_not_looked_up(langchain: PyropeCache) -> None:
    model = Model(answer=numbered, cache=langchain)
    found = [HumanMessage("Search!"), ToolMessage("found", tool_call_id="1")]
    image = HumanMessage([{"type": "image_url", "image_url": {"url": "data:,"}}])
    for talk in (found, [image]):
        assert model.invoke(talk).content != model.invoke(talk).content


@pytest.mark.parametrize(
    "told",
    [
        ending(finish_reason="length"),
        ending(stop_reason="max_tokens"),
        ending(finish_reason="SAFETY"),
        ending(done_reason="load"),
        AIMessage(" "),
        AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
        AIMessage("calling", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
    ],
    ids=["length", "max_tokens", "safety", "load", "blank", "tool", "tool and text"],
)
def test_what_is_not_complete_is_not_remembered(langchain: PyropeCache, told: AIMessage) -> None:
    model = Model(answer=lambda number: told if number == 1 else numbered(number), cache=langchain)
    model.invoke(NEAR[0])
    for _ in range(2):
        assert model.invoke(NEAR[0]).content == "answer 2"


@pytest.mark.parametrize(
    "told",
    [ending(), ending(stop_reason="end_turn"), ending(finish_reason="STOP")],
    ids=["silent", "end_turn", "STOP"],
)
def test_providers_have_many_words_for_the_end(langchain: PyropeCache, told: AIMessage) -> None:
    model = Model(answer=lambda number: told if number == 1 else numbered(number), cache=langchain)
    for _ in range(2):
        assert model.invoke(NEAR[0]).content == "an answer"


def test_errors_are_not_remembered_and_may_be_tried_again(langchain: PyropeCache) -> None:
    model = Model(
        answer=lambda number: ValueError("no") if number == 1 else numbered(number),
        cache=langchain,
    )
    with pytest.raises(ValueError, match="no"):
        model.invoke(NEAR[0])
    for _ in range(2):
        assert model.invoke(NEAR[0]).content == "answer 2"


def test_plain_models_and_batches(langchain: PyropeCache) -> None:
    model = FakeListLLM(responses=["a", "b", "c"], cache=langchain)
    assert model.batch([NEAR[0], NEAR[0]]) in (["a", "b"], ["a", "a"])
    assert model.generate([NEAR[0], "Something else?", "Something else?"]).flatten()
    assert model.invoke(NEAR[0]) == model.invoke(NEAR[1])
    # It looks like messages, and is none.
    assert langchain.lookup('[{"lc": 2}]', "m") is None
    langchain.update('[{"lc": 2}]', "m", [Generation(text="odd", generation_info={"n": 1})])
    assert langchain.lookup('[{"lc": 2}]', "m") == [
        Generation(text="odd", generation_info={"n": 1})
    ]
    assert langchain.lookup("[{ broken", "m") is None


def test_what_json_cannot_say_is_not_remembered(
    langchain: PyropeCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pyrope.integrations")
    langchain.update("a", "m", [Generation(text="x", generation_info={"object": object()})])
    assert "JSON cannot say it" in caplog.text
    langchain.update("b", "m", [])
    for prompt in ("a", "b"):
        assert langchain.lookup(prompt, "m") is None


def test_clearing_takes_what_is_langchains(
    langchain: PyropeCache, memory: Client[str], server: RunningServer
) -> None:
    memory.responses.remember(INDEX, NEAR[0], "another's")
    langchain.update(NEAR[0], "m", [Generation(text="x")])
    with ResponseCache(INDEX, RememberOptions(scope={"app": "b"}), port=server.port) as cache:
        other = PyropeCache(cache)
        other.update(NEAR[0], "m", [Generation(text="y")])
        other.clear()
        assert other.lookup(NEAR[0], "m") is None
    assert langchain.lookup(NEAR[0], "m") == [Generation(text="x")]
    langchain.clear()
    assert memory.responses.recall(INDEX, NEAR[0]).text == "another's"


def test_threads_that_ask_the_same_ask_the_model_once(langchain: PyropeCache) -> None:
    model = Model(answer=numbered, cache=langchain)
    with ThreadPoolExecutor(20) as threads:
        told = {each.content for each in threads.map(model.invoke, [NEAR[0]] * 20)}
    assert told == {"answer 1"}


async def test_tasks_that_ask_the_same_ask_the_model_once(alangchain: PyropeCache) -> None:
    model = Model(answer=numbered, cache=alangchain)
    told = await asyncio.gather(*(model.ainvoke(NEAR[0]) for _ in range(30)))
    assert {each.content for each in told} == {"answer 1"}
    assert (await model.ainvoke(NEAR[1])).content == "answer 1"
    await alangchain.aclear()
    assert (await model.ainvoke(NEAR[1])).content == "answer 2"
    await alangchain.aupdate("b", "m", [])
    assert await alangchain.alookup("b", "m") is None


async def test_errors_in_an_event_loop_are_not_remembered(alangchain: PyropeCache) -> None:
    model = Model(
        answer=lambda number: ValueError("no") if number == 1 else numbered(number),
        cache=alangchain,
    )
    with pytest.raises(ValueError, match="no"):
        await model.ainvoke(NEAR[0])
    assert (await model.ainvoke(NEAR[0])).content == "answer 2"


def test_a_cost_comes_from_the_tokens(memory: Client[str], server: RunningServer) -> None:
    options = RememberOptions(cost=lambda spent: 100.0 * spent.tokens_in + spent.tokens_out)
    with ResponseCache(INDEX, options, port=server.port) as cache:
        model = Model(answer=numbered, cache=PyropeCache(cache))
        for _ in range(2):
            model.invoke(NEAR[0])
    assert memory.cache.stats(INDEX).remembered["cost_saved"] == 305.0


def test_without_a_server_the_model_is_asked() -> None:
    with ResponseCache(INDEX, port=free_port()) as cache:
        model = Model(answer=numbered, cache=PyropeCache(cache))
        assert [model.invoke(NEAR[0]).content for _ in range(2)] == ["answer 1", "answer 2"]
