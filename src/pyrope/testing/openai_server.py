"""A stand-in of an OpenAI-compatible API.

https://platform.openai.com/docs/api-reference/chat and .../embeddings, as much of them as the
openai client uses; also with the accents of vLLM and of Ollama.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterator
from typing import Literal

from pyrope.testing.http_server import HttpReply, HttpRequest
from pyrope.testing.provider_outcomes import (
    Answer,
    Asked,
    Behaviour,
    NoCandidates,
    Problem,
    Refused,
)
from pyrope.testing.provider_server import (
    Json,
    NotUnderstoodError,
    ProviderServer,
    json_reply,
    posted_json,
    retry_header,
)

_OPENAI_FINISH = {"stop": "stop", "length": "length", "safety": "content_filter"}

_OPENAI_CODES = {
    400: ("invalid_request_error", "invalid_value"),
    401: ("invalid_request_error", "invalid_api_key"),
    403: ("invalid_request_error", "unsupported_country_region_territory"),
    404: ("invalid_request_error", "model_not_found"),
    429: ("requests", "rate_limit_exceeded"),
}

_VLLM_TYPES = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError"}


class OpenAIServer(ProviderServer):
    """An OpenAI-compatible API: `/v1/chat/completions` and `/v1/embeddings`.

    Args:
        accent: whose replies: `openai`, `vllm` (null fields of its own, errors without a code) or
            `ollama` (errors of the type `api_error`, no refusals).
        others: as of `ProviderServer`.
    """

    def __init__(
        self,
        *,
        accent: Literal["openai", "vllm", "ollama"] = "openai",
        chat: Behaviour | None = None,
        embed: Behaviour | None = None,
        dim: int = 8,
        key: str | None = None,
    ) -> None:
        super().__init__(chat=chat, embed=embed, dim=dim, key=key)
        self.accent = accent

    @property
    def base_url(self) -> str:
        return f"{self.http.origin}/v1"

    def understand(self, request: HttpRequest) -> Asked:
        path = request.path.partition("?")[0]
        if path not in {"/v1/chat/completions", "/v1/embeddings"}:
            raise NotUnderstoodError(404, f"there is no {path}", "unknown_url")
        if self.key is not None and request.headers.get("authorization") != f"Bearer {self.key}":
            # The key that was shown is part of the message, as OpenAI has it (masked, there).
            shown = request.headers.get("authorization", "").removeprefix("Bearer ")
            raise NotUnderstoodError(401, f"Incorrect API key provided: {shown}")
        body = posted_json(request)
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise NotUnderstoodError(400, "you must provide a model parameter")
        if path == "/v1/embeddings":
            texts = body.get("input")
            texts = [texts] if isinstance(texts, str) else texts
            if not texts:
                raise NotUnderstoodError(400, "input is required")
            return Asked(
                "embeddings",
                path,
                request.headers,
                body,
                model,
                texts=tuple(texts),
                dim=body.get("dimensions"),
            )
        messages = body.get("messages")
        if not messages:
            raise NotUnderstoodError(400, "messages are required")
        form = body.get("response_format") or {}
        schema = form["json_schema"]["schema"] if form.get("type") == "json_schema" else None
        system = (m["content"] for m in messages if m["role"] in {"system", "developer"})
        return Asked(
            "chat",
            path,
            request.headers,
            body,
            model,
            system="".join(system),
            user="".join(m["content"] for m in messages if m["role"] == "user"),
            schema=schema,
            max_tokens_out=body.get("max_completion_tokens", body.get("max_tokens")),
        )

    def completion(self, asked: Asked, outcome: Answer | Refused | NoCandidates) -> Json:
        reply: Json = {
            "id": f"chatcmpl-{len(self.asked)}",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": asked.model,
            "choices": [],
        }
        if self.accent == "ollama":
            reply["system_fingerprint"] = "fp_ollama"
        if isinstance(outcome, Answer):
            reply["choices"].append(self._choice(outcome))
            if outcome.usage:
                count_in = self.count_in(asked, outcome.tokens_in)
                count_out = self.count_out(outcome) + outcome.tokens_thought
                reply["usage"] = _openai_usage(count_in, count_out)
                if outcome.tokens_thought:
                    thought = {"reasoning_tokens": outcome.tokens_thought}
                    reply["usage"]["completion_tokens_details"] = thought
            return reply
        if isinstance(outcome, Refused):
            message = {"role": "assistant", "content": None, "refusal": outcome.reason}
            reply["choices"].append({"index": 0, "message": message, "finish_reason": "stop"})
        reply["usage"] = _openai_usage(self.count_in(asked, outcome.tokens_in), 0)
        return reply

    def chat_reply(self, asked: Asked, completion: Json) -> HttpReply:
        if not asked.body.get("stream"):
            return super().chat_reply(asked, completion)
        usage = (asked.body.get("stream_options") or {}).get("include_usage", False)
        events = [json.dumps(chunk) for chunk in _chunks(completion, usage=usage)]
        body = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])
        return HttpReply(200, body.encode(), {"Content-Type": "text/event-stream"})

    def _choice(self, answer: Answer) -> Json:
        message: Json = {"role": "assistant", "content": answer.text}
        choice: Json = {
            "index": 0,
            "message": message,
            "finish_reason": _OPENAI_FINISH[answer.finish],
        }
        if self.accent == "openai":
            message |= {"refusal": None, "annotations": []}
            choice["logprobs"] = None
        elif self.accent == "vllm":
            message |= {"reasoning_content": None, "tool_calls": []}
            choice |= {"logprobs": None, "stop_reason": None}
        return choice

    def embeddings(self, asked: Asked, rows: list[list[float]], tokens: int | None) -> Json:
        as_base64 = asked.body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": at, "embedding": _base64(row) if as_base64 else row}
            for at, row in enumerate(rows)
        ]
        reply: Json = {"object": "list", "model": asked.model, "data": data}
        if tokens is not None:
            reply["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return reply

    def error(self, problem: Problem) -> HttpReply:
        kind, code = _OPENAI_CODES.get(problem.status, ("server_error", None))
        error: Json = {"message": problem.message, "type": kind, "param": None}
        if self.accent == "openai":
            error["code"] = problem.code or code
        elif self.accent == "vllm":
            kind = _VLLM_TYPES.get(problem.status, "InternalServerError")
            error |= {"type": kind, "code": problem.status}
        else:
            error |= {"type": "api_error", "code": None}
        return json_reply({"error": error}, problem.status, retry_header(problem))


def _chunks(completion: Json, *, usage: bool) -> Iterator[Json]:
    """A completion as a stream has it: a chunk for every word, and one for the end."""
    head = {name: value for name, value in completion.items() if name not in {"choices", "usage"}}
    head["object"] = "chat.completion.chunk"
    for choice in completion["choices"]:
        message = choice["message"]
        deltas: list[Json] = [{"role": "assistant", "content": ""}]
        deltas += [
            {"content": word} for word in re.findall(r"\s*\S+\s*$|\s*\S+", message["content"] or "")
        ]
        deltas += [{name: message[name]} for name in ("refusal", "tool_calls") if message.get(name)]
        ends = [*[None] * len(deltas), choice["finish_reason"]]
        for delta, end in zip([*deltas, {}], ends, strict=True):
            yield {
                **head,
                "choices": [{"index": choice["index"], "delta": delta, "finish_reason": end}],
            }
    if usage:
        yield {**head, "choices": [], "usage": completion.get("usage")}


def _openai_usage(count_in: int, count_out: int) -> Json:
    return {
        "prompt_tokens": count_in,
        "completion_tokens": count_out,
        "total_tokens": count_in + count_out,
    }


def _base64(row: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(row)}f", *row)).decode()
