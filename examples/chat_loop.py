"""A chat with a memory: what was asked before, in these words or in others, is not asked again.

OpenAI's own client talks to a language model, and Pyrope remembers what it says. Without
``--base-url`` a stand-in of a model answers, on this host and without a network. Type a question;
``/new`` begins another talk, ``/wrong`` says that the last answer was not right, an empty line ends
it. What was said before is part of a question: to be answered from memory, begin another talk.

    make run                                 # in another terminal
    python examples/chat_loop.py
    OPENAI_API_KEY=… python examples/chat_loop.py --base-url https://api.openai.com/v1 --model gpt-5
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from openai import OpenAI

from pyrope.client import Client
from pyrope.integrations import RememberOptions, ResponseCache
from pyrope.integrations.openai import remembering
from pyrope.testing.provider_servers import Answer, Asked, OpenAIServer

INDEX = "chat"
SYSTEM = "You answer questions about the shop, in one sentence."
KNOWN = {
    "return": "You can send anything back within 30 days, at no cost.",
    "password": "Click on the link below the form, and you get an e-mail to set a new one.",
    "deliver": "What is ordered before noon is delivered on the next working day.",
}


def stand_in(asked: Asked) -> Answer:
    """What a model would say to the last question."""
    question = asked.body["messages"][-1]["content"].casefold()
    found = (answer for word, answer in KNOWN.items() if word in question)
    return Answer(next(found, "That I do not know."))


@contextmanager
def model(base_url: str | None) -> Iterator[str]:
    """Where the model is: a real one, or a stand-in in a thread of its own."""
    if base_url is not None:
        yield base_url
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = OpenAIServer(chat=stand_in)
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        yield server.base_url
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def answer(client: OpenAI, name: str, talk: Sequence[Any]) -> tuple[str, dict[str, Any] | None]:
    """Print an answer as it comes. Returns it, and where it is remembered from; None: nowhere."""
    said, source = "", None
    for chunk in client.chat.completions.create(model=name, messages=list(talk), stream=True):
        source = (chunk.model_extra or {}).get("remembered", source)
        part = chunk.choices[0].delta.content if chunk.choices else None
        print(part or "", end="", flush=True)
        said += part or ""
    if source is None:
        print("\n  [from the model]")
    else:
        print(f"\n  [from memory, {source['match']}: {source['prompt']}]")
    return said, source


def chat(client: OpenAI, cache: ResponseCache, name: str) -> None:
    """Answer what is typed."""
    start = [{"role": "system", "content": SYSTEM}]
    talk: list[Any] = list(start)
    last: dict[str, Any] | None = None
    while line := ask():
        if line == "/new":
            talk = list(start)
        elif line == "/wrong" and last is not None:
            cache.feedback(last["id"], good=False)
            print("  [it is not said again]")
        elif line == "/wrong":
            print("  [the last answer is not from memory]")
        else:
            talk.append({"role": "user", "content": line})
            said, last = answer(client, name, talk)
            talk.append({"role": "assistant", "content": said})


def ask() -> str:
    """What is typed next; empty: nothing more."""
    if sys.stdin.isatty():
        print("> ", end="", flush=True)
    return sys.stdin.readline().strip()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="A chat with a memory.")
    parser.add_argument("--url", default="redis://127.0.0.1:7379")
    parser.add_argument("--base-url", help="of an API like OpenAI's; without it, a stand-in")
    parser.add_argument("--model", default="stand-in")
    parser.add_argument("--max-error", type=float, default=0.2, help="share of wrong answers")
    given = parser.parse_args(arguments)

    with Client(given.url) as pyrope:
        pyrope.create(INDEX, embedder="wordllama", if_new=True)
        options = RememberOptions(max_error=given.max_error)
        with (
            ResponseCache(INDEX, options, url=given.url) as cache,
            model(given.base_url) as base_url,
            OpenAI(base_url=base_url, api_key=os.environ.get("OPENAI_API_KEY", "none")) as client,
        ):
            chat(remembering(client, cache), cache, given.model)
        told = pyrope.cache.stats(INDEX).remembered
        print(f"{told['hits']} of {told['recalls']} answers came from memory")


if __name__ == "__main__":
    main()
