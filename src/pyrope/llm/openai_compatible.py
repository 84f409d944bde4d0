"""OpenAI, and whatever else speaks its API, by the asynchronous client of OpenAI.

The client builds and sends requests. Its replies are taken as bytes and checked here: what a
broken or hostile endpoint sends is not for it to make sense of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError

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
from pyrope.retry_after import seconds_to_wait

if TYPE_CHECKING:
    import openai

HOME: Final = "https://api.openai.com/v1"

MaxTokensField = Literal["max_completion_tokens", "max_tokens"]

Tokens = Annotated[int, Field(strict=True, ge=0, le=10**9)]


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0


class _Reply(BaseModel):
    """As much of a chat completion as is looked at."""

    choices: list[_Choice] = Field(max_length=8)
    usage: _Usage | None = None


class OpenAIProvider(Adapter["openai.AsyncOpenAI"]):
    """The chat completions of an OpenAI-compatible API, such as vLLM's and Ollama's.

    https://platform.openai.com/docs/api-reference/chat/create

    Args:
        max_tokens_field: what the API calls the bound on tokens of a reply.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        clock: Clock,
        run: RunOffLoop,
        max_tokens_field: MaxTokensField = "max_completion_tokens",
    ) -> None:
        super().__init__("openai", HOME, endpoint, clock=clock, run=run)
        self._max_tokens_field = max_tokens_field

    def _make(self) -> openai.AsyncOpenAI:
        import openai  # noqa: PLC0415 - takes half a second, and only where switched on

        from pyrope.http_client import make_http_client  # noqa: PLC0415 - likewise

        http = make_http_client(
            self.endpoint.timeout_s,
            connections=MOST_CONNECTIONS,
            most_reply_bytes=MOST_REPLY_BYTES,
        )
        client = openai.AsyncOpenAI(
            api_key=self.endpoint.key,
            base_url=self.endpoint.base_url or HOME,
            timeout=self.endpoint.timeout_s,
            # Once is enough: the worker decides on further attempts.
            max_retries=0,
            http_client=http,
        )
        # The parts of the client that are made when they are first asked for.
        _ = client.chat.completions.with_raw_response.create
        return client

    async def _close(self, client: openai.AsyncOpenAI) -> None:
        await client.close()

    async def _call(self, client: openai.AsyncOpenAI, prompt: Prompt) -> Completion:
        request: dict[str, Any] = {self._max_tokens_field: self.most_tokens_out(prompt)}
        form = self.endpoint.response_format
        if form != "text":
            request["response_format"] = _response_format(prompt.schema, form)
        raw = await client.chat.completions.with_raw_response.create(
            model=self.model,
            messages=[
                {"role": "system", "content": system_text(prompt, form)},
                {"role": "user", "content": prompt.user},
            ],
            **request,
        )
        try:
            reply = _Reply.model_validate_json(raw.content)
        except ValidationError:
            raise self.unreadable() from None
        return self._read(reply, prompt)

    def _read(self, reply: _Reply, prompt: Prompt) -> Completion:
        usage = reply.usage or _Usage()
        tokens_in, tokens_out = usage.prompt_tokens, usage.completion_tokens
        choice = reply.choices[0] if reply.choices else None
        if choice is not None and (
            choice.message.refusal or choice.finish_reason == "content_filter"
        ):
            raise ProviderError(
                Failure.REFUSED,
                f"{self.who} refuses an answer",
                tokens_in=tokens_in,
                tokens_out=tokens_out,
            )
        if choice is not None and choice.finish_reason == "length":
            raise self.cut_off(prompt, tokens_in, tokens_out)
        if choice is None or choice.message.content is None:
            raise ProviderError(
                Failure.UNAVAILABLE,
                f"{self.who} gave no answer",
                tokens_in=tokens_in,
                tokens_out=tokens_out,
            )
        text = reply_text(choice.message.content, self.endpoint.response_format)
        return Completion(text, tokens_in, tokens_out)

    def _known(self, error: BaseException) -> ProviderError | None:
        import openai  # noqa: PLC0415 - `_make` has imported it

        if not isinstance(error, openai.APIStatusError):
            return None
        # The client unwraps `error`; vLLM once sent what belongs there on its own.
        body: object = error.body
        codes = (body.get("code"), body.get("type")) if isinstance(body, Mapping) else ()
        wait = seconds_to_wait(error.response.headers, self._clock.wall())
        return status_error(self.who, error.status_code, codes, wait)


def _response_format(
    schema: type[BaseModel], form: Literal["json_schema", "json_object"]
) -> dict[str, Any]:
    if form == "json_object":
        return {"type": "json_object"}
    named = {"name": schema.__name__[:64], "schema": strict_schema(schema), "strict": True}
    return {"type": "json_schema", "json_schema": named}
