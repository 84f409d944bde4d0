"""Embeddings of any API that speaks OpenAI's: OpenAI itself, vLLM, Ollama, and others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyrope.embed.remote import MOST_REPLY_BYTES, Answer, RemoteEmbedder, told_tokens


class OpenAIEmbedder(RemoteEmbedder):
    """By the official client (https://platform.openai.com/docs/api-reference/embeddings)."""

    name = "openai"

    def _connect(self) -> Any:
        import openai  # noqa: PLC0415 - takes half a second, and only where asked for

        from pyrope.http_client import make_http_client  # noqa: PLC0415 - likewise

        options = self.options
        client = openai.AsyncOpenAI(
            # Without one the client would look for the environment's; local servers ask for none.
            api_key=options.api_key or "none",
            base_url=options.base_url or "https://api.openai.com/v1",
            timeout=options.timeout_s,
            # Whether to ask again is not for it to decide.
            max_retries=0,
            http_client=make_http_client(
                options.timeout_s, connections=options.parallel, most_reply_bytes=MOST_REPLY_BYTES
            ),
        )
        # The part of the client that is made when it is first asked for.
        _ = client.embeddings.create
        return client

    async def _disconnect(self, client: Any) -> None:
        await client.close()

    async def _call(self, client: Any, texts: Sequence[str]) -> Answer:
        import openai  # noqa: PLC0415 - `_connect` has imported it

        asked: dict[str, Any] = {"dimensions": self.options.dim} if self.options.dim else {}
        try:
            found = await client.embeddings.create(
                model=self.options.model, input=list(texts), **asked
            )
        except openai.APIStatusError as error:
            raise self._refused(error.status_code, error.response.headers) from error
        rows = [each.embedding for each in sorted(found.data, key=_place)]
        return Answer(rows, told_tokens(getattr(found, "usage", None)))


def _place(vector: Any) -> int:
    """Of a vector's text: its index; 0, where a server leaves that to the order."""
    index = getattr(vector, "index", 0)
    return index if isinstance(index, int) else 0
