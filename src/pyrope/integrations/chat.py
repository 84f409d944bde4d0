"""Chats in OpenAI's form, which others have taken over: what is asked, and what was said.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pyrope.integrations.options import Spent


def split(messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[Any]] | None:
    """What is asked last, and all that was said before.

    Near hits go by the former; a response is for one who has said the very same before, and was
    told the very same by the system.

    Returns:
        The text of the last message, and the messages with that text left out. None: it is no
        text of a user, but, say, an image, or what a tool has found.
    """
    if not messages:
        return None
    *before, last = messages
    text = text_of(last.get("content")) if last.get("role") == "user" else None
    if text is None:
        return None
    return text, [*before, {name: value for name, value in last.items() if name != "content"}]


def text_of(content: object) -> str | None:
    """Content that is text, in one piece or in several; None: it is something else, or more."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or not content:
        return None
    texts = []
    for part in content:
        text = part if isinstance(part, str) else None
        if isinstance(part, Mapping) and part.keys() == {"type", "text"} and part["type"] == "text":
            text = part["text"]
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "\n".join(texts)


def is_complete(completion: Mapping[str, Any]) -> bool:
    """Whether the model has said all it had to say, in words.

    What was cut off, filtered or refused is not; nor are calls of tools, for their arguments are of
    this very prompt.
    """
    choices = completion.get("choices")
    return bool(choices) and all(map(_is_complete, choices or ()))


def _is_complete(choice: Mapping[str, Any]) -> bool:
    message = choice.get("message") or {}
    content = message.get("content")
    if choice.get("finish_reason") != "stop" or not isinstance(content, str) or not content.strip():
        return False
    return not any(message.get(name) for name in ("tool_calls", "function_call", "refusal"))


def spent_of(completion: Mapping[str, Any]) -> Spent | None:
    """Tokens, as the provider counts them; None: it does not say."""
    usage = completion.get("usage") or {}
    tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(tokens_in, int) or not isinstance(tokens_out, int):
        return None
    return Spent(str(completion.get("model") or ""), tokens_in, tokens_out)


class Assembly:
    """A completion out of the chunks of a stream."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._usage: Any = None
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, chunk: Any) -> None:
        """Take in a `ChatCompletionChunk`."""
        if not self._head:
            names = ("id", "created", "model", "service_tier", "system_fingerprint")
            self._head = {name: getattr(chunk, name, None) for name in names}
        if chunk.usage is not None:
            self._usage = chunk.usage.model_dump(mode="json")
        for told in chunk.choices:
            choice = self._choices.setdefault(
                told.index, {"said": [], "odds": [], "other": None, "end": None}
            )
            choice["end"] = told.finish_reason or choice["end"]
            if told.logprobs is not None and told.logprobs.content:
                choice["odds"] += [each.model_dump(mode="json") for each in told.logprobs.content]
            delta = told.delta
            if delta is None:
                continue
            if delta.content:
                choice["said"].append(delta.content)
            choice["other"] = choice["other"] or delta.tool_calls or delta.function_call
            choice["other"] = choice["other"] or delta.refusal

    def completion(self) -> dict[str, Any] | None:
        """The whole; None: there is something else in it than words."""
        if any(choice["other"] for choice in self._choices.values()):
            return None
        return {
            **{name: value for name, value in self._head.items() if value is not None},
            "object": "chat.completion",
            "choices": [
                {
                    "index": index,
                    "finish_reason": choice["end"],
                    "message": {"role": "assistant", "content": "".join(choice["said"])},
                    **({"logprobs": {"content": choice["odds"]}} if choice["odds"] else {}),
                }
                for index, choice in sorted(self._choices.items())
            ],
            **({} if self._usage is None else {"usage": self._usage}),
        }


def chunks(completion: Mapping[str, Any], *, usage: bool) -> Iterator[dict[str, Any]]:
    """A completion as a stream has it: what is said, that it is all, and what it took.

    Args:
        usage: whether that was asked for.
    """
    head = {name: value for name, value in completion.items() if name not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    for choice in completion["choices"]:
        # With what else there is beside the words, such as where they are from.
        delta = {"role": "assistant"}
        delta |= {name: value for name, value in choice["message"].items() if value}
        odds = choice.get("logprobs")
        for said, beside, end in ((delta, odds, None), ({}, None, choice["finish_reason"])):
            part = {"index": choice["index"], "delta": said, "finish_reason": end}
            if beside is not None:
                part["logprobs"] = beside
            yield {**head, "choices": [part]}
    if usage:
        yield {**head, "choices": [], "usage": completion.get("usage")}
