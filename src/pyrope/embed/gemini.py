"""Embeddings of Gemini's API (`batchEmbedContents`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

from pyrope.embed.embedder import EmbedderError, Failure
from pyrope.embed.remote import MOST_REPLY_BYTES, Answer, RemoteEmbedder, told_tokens

_HOME = "https://generativelanguage.googleapis.com/"
_DELAY = re.compile(r"(\d+(?:\.\d+)?)s")


class _Client(NamedTuple):
    http: Any
    genai: Any


class GeminiEmbedder(RemoteEmbedder):
    """By google-genai's asynchronous client (https://ai.google.dev/api/embeddings)."""

    name = "gemini"
    # Text, and not base64.
    most_numbers = 8192

    def _connect(self) -> Any:
        from google import genai  # noqa: PLC0415 - takes half a second, and only where asked for
        from google.genai import types  # noqa: PLC0415 - likewise

        from pyrope.http_client import (  # noqa: PLC0415 - likewise
            make_dry_client,
            make_http_client,
        )

        options = self.options
        http = make_http_client(
            options.timeout_s, connections=options.parallel, most_reply_bytes=MOST_REPLY_BYTES
        )
        with make_dry_client() as dry:
            client = genai.Client(
                # Told, so that the environment is not asked which API and which key are meant.
                vertexai=False,
                api_key=options.api_key or "none",
                http_options=types.HttpOptions(
                    base_url=options.base_url or _HOME,
                    timeout=ceil(options.timeout_s * 1000),
                    httpx_async_client=http,
                    httpx_client=dry,
                    # Whether to ask again is not for it to decide.
                    retry_options=types.HttpRetryOptions(attempts=1),
                ),
            )
            # A first call makes pydantic build the client's classes, which takes 30 ms: here it
            # is, to nobody.
            client.models.embed_content(
                model=options.model, contents=self._contents(["-"]), config=self._config()
            )
        _ = client.aio.models
        return _Client(http, client)

    async def _disconnect(self, client: Any) -> None:
        await client.http.aclose()

    def _contents(self, texts: Sequence[str]) -> Any:
        from google.genai import types  # noqa: PLC0415 - `_connect` has imported it

        # Strings would be parts of a single content for some models.
        return [types.Content(parts=[types.Part(text=text)]) for text in texts]

    def _config(self) -> Any:
        from google.genai import types  # noqa: PLC0415 - `_connect` has imported it

        if not self.options.dim:
            return None
        return types.EmbedContentConfig(output_dimensionality=self.options.dim)

    async def _call(self, client: Any, texts: Sequence[str]) -> Answer:
        from google.genai import errors  # noqa: PLC0415 - `_connect` has imported it

        try:
            found = await client.genai.aio.models.embed_content(
                model=self.options.model, contents=self._contents(texts), config=self._config()
            )
        except errors.APIError as error:
            raise self._failure(error) from error
        rows = [each.values or [] for each in found.embeddings or []]
        return Answer(rows, told_tokens(found.usage_metadata))

    def _failure(self, error: Any) -> EmbedderError:
        details = _details(error.details)
        if any(each.get("reason") == "API_KEY_INVALID" for each in details):
            # Which is a 400 of Gemini's.
            return self._refused(401, {})
        headers = dict(getattr(error.response, "headers", None) or {})
        for each in details:
            delay = _DELAY.fullmatch(str(each.get("retryDelay", "")))
            if delay and "retry-after" not in headers:
                headers["retry-after"] = delay[1]
        if not isinstance(error.code, int):
            return EmbedderError(Failure.MALFORMED, "its answer is not understood")
        return self._refused(error.code, headers)


def _details(body: Any) -> list[dict[str, Any]]:
    """The details of an error (google.rpc.Status), as far as they are there."""
    error = body.get("error") if isinstance(body, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    if not isinstance(details, list):
        return []
    return [each for each in details if isinstance(each, dict)]
