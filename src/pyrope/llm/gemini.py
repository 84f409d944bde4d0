"""Gemini, by google-genai's asynchronous client.

The client builds and sends requests. Its replies are taken as bytes and checked here: what a
broken or hostile endpoint sends is not for it to make sense of.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

from pydantic import BaseModel, Field, ValidationError
from pydantic.alias_generators import to_camel

from pyrope.clock import Clock
from pyrope.llm.adapter import (
    MOST_CONNECTIONS,
    MOST_REPLY_BYTES,
    Adapter,
    Endpoint,
    RunOffLoop,
)
from pyrope.llm.failures import status_error
from pyrope.llm.provider import Completion, Failure, Prompt, ProviderError
from pyrope.llm.reply_schema import reply_text, strict_schema, system_text
from pyrope.retry_after import bounded_wait, seconds_to_wait

if TYPE_CHECKING:
    import httpx2
    from google import genai
    from google.genai import types

HOME: Final = "https://generativelanguage.googleapis.com/"

_REFUSALS: Final = frozenset(
    {
        "BLOCKLIST",
        "ESCALATION",
        "LANGUAGE",
        "MODEL_ARMOR",
        "PROHIBITED_CONTENT",
        "PUP_LIMITED_DISABLED",
        "RECITATION",
        "SAFETY",
        "SPII",
    }
)
"""Reasons to finish that are about the content; JAILBREAK and others block prompts only."""

_JSON: Final = "application/json"

Tokens = Annotated[int, Field(strict=True, ge=0, le=10**9)]


class _Part(BaseModel):
    text: str = ""
    thought: bool = False


class _Content(BaseModel):
    parts: list[_Part] = Field(default=[], max_length=64)


class _Candidate(BaseModel, alias_generator=to_camel):
    content: _Content = _Content()
    finish_reason: str = "STOP"


class _Feedback(BaseModel, alias_generator=to_camel):
    block_reason: str = ""


class _Usage(BaseModel, alias_generator=to_camel):
    prompt_token_count: Tokens = 0
    candidates_token_count: Tokens = 0
    thoughts_token_count: Tokens = 0


class _Reply(BaseModel, alias_generator=to_camel):
    """As much of a GenerateContentResponse as is looked at."""

    candidates: list[_Candidate] = Field(default=[], max_length=8)
    prompt_feedback: _Feedback = _Feedback()
    usage_metadata: _Usage = _Usage()


_DRY_RUN: Final = Prompt(system="-", user="-", schema=_Reply, max_tokens_out=1)


class _Client(NamedTuple):
    http: httpx2.AsyncClient
    genai: genai.Client


class GeminiProvider(Adapter[_Client]):
    """Gemini's API (https://ai.google.dev/api/generate-content), or one that speaks it.

    Thoughts are charged as what is written, as Google does.
    """

    def __init__(self, endpoint: Endpoint, *, clock: Clock, run: RunOffLoop) -> None:
        super().__init__("gemini", HOME, endpoint, clock=clock, run=run)

    def _make(self) -> _Client:
        from google import genai  # noqa: PLC0415 - takes half a second, and only where switched on
        from google.genai import types  # noqa: PLC0415 - likewise

        from pyrope.http_client import make_dry_client, make_http_client  # noqa: PLC0415

        http = make_http_client(
            self.endpoint.timeout_s,
            connections=MOST_CONNECTIONS,
            most_reply_bytes=MOST_REPLY_BYTES,
        )
        with make_dry_client() as dry:
            client = genai.Client(
                vertexai=False,
                api_key=self.endpoint.key,
                http_options=types.HttpOptions(
                    base_url=self.endpoint.base_url or HOME,
                    # Tells the API too when nobody waits for the answer any more.
                    timeout=ceil(self.endpoint.timeout_s * 1000),
                    httpx_async_client=http,
                    httpx_client=dry,
                    # Once is enough: the worker decides on further attempts.
                    retry_options=types.HttpRetryOptions(attempts=1),
                ),
            )
            # A first call makes pydantic build the client's classes, which takes 30 ms: here it
            # is, to nobody.
            client.models.generate_content(
                model=self.model, contents="-", config=self._config(_DRY_RUN)
            )
        _ = client.aio.models
        return _Client(http, client)

    async def _close(self, client: _Client) -> None:
        await client.http.aclose()

    def _config(self, prompt: Prompt) -> types.GenerateContentConfig:
        from google.genai import types  # noqa: PLC0415 - `_make` has imported it

        form = self.endpoint.response_format
        return types.GenerateContentConfig(
            system_instruction=system_text(prompt, form),
            max_output_tokens=self.most_tokens_out(prompt),
            response_mime_type=None if form == "text" else _JSON,
            response_json_schema=strict_schema(prompt.schema) if form == "json_schema" else None,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            should_return_http_response=True,
        )

    async def _call(self, client: _Client, prompt: Prompt) -> Completion:
        answer = await client.genai.aio.models.generate_content(
            model=self.model, contents=prompt.user, config=self._config(prompt)
        )
        response = answer.sdk_http_response
        body = response.body if response is not None else None
        try:
            reply = _Reply.model_validate_json(body or "")
        except ValidationError:
            raise self.unreadable() from None
        return self._read(reply, prompt)

    def _read(self, reply: _Reply, prompt: Prompt) -> Completion:
        usage = reply.usage_metadata
        tokens_in = usage.prompt_token_count
        tokens_out = usage.candidates_token_count + usage.thoughts_token_count
        if not reply.candidates:
            blocked = bool(reply.prompt_feedback.block_reason)
            raise ProviderError(
                Failure.REFUSED if blocked else Failure.UNAVAILABLE,
                f"{self.who} {'refuses the prompt' if blocked else 'gave no candidates'}",
                tokens_in=tokens_in,
                tokens_out=tokens_out,
            )
        candidate = reply.candidates[0]
        if candidate.finish_reason == "MAX_TOKENS":
            raise self.cut_off(prompt, tokens_in, tokens_out)
        if candidate.finish_reason != "STOP":
            refused = candidate.finish_reason in _REFUSALS
            raise ProviderError(
                Failure.REFUSED if refused else Failure.UNAVAILABLE,
                f"{self.who} {'refuses an answer' if refused else 'broke an answer off'}",
                tokens_in=tokens_in,
                tokens_out=tokens_out,
            )
        text = "".join(part.text for part in candidate.content.parts if not part.thought)
        return Completion(reply_text(text, self.endpoint.response_format), tokens_in, tokens_out)

    def _known(self, error: BaseException) -> ProviderError | None:
        from google.genai import errors  # noqa: PLC0415 - `_make` has imported it

        if not isinstance(error, errors.APIError):
            return None
        headers = getattr(error.response, "headers", {})
        waits = [seconds_to_wait(headers, self._clock.wall())]
        reasons: list[object] = []
        for detail in _details(error.details):
            reasons.append(detail.get("reason"))
            waits.append(_duration(detail.get("retryDelay")))
        asked = [wait for wait in waits if wait is not None]
        codes = (*reasons, error.status)
        return status_error(self.who, error.code, codes, max(asked, default=None))


def _details(body: Any) -> Iterator[dict[str, Any]]:
    """The details of a `google.rpc.Status`, as far as `body` has any."""
    error = body.get("error") if isinstance(body, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    if isinstance(details, list):
        yield from (detail for detail in details if isinstance(detail, dict))


def _duration(value: object) -> float | None:
    """Seconds of a `google.protobuf.Duration` as JSON has it: ``"39.5s"``."""
    if not isinstance(value, str) or not value.endswith("s"):
        return None
    try:
        return bounded_wait(float(value[:-1]))
    except ValueError:
        return None
