"""From the settings to a provider."""

from __future__ import annotations

from pyrope.clock import Clock
from pyrope.config import LlmSettings
from pyrope.llm.adapter import Endpoint, RunOffLoop
from pyrope.llm.gemini import GeminiProvider
from pyrope.llm.openai_compatible import OpenAIProvider
from pyrope.llm.provider import Provider


def make_provider(settings: LlmSettings, *, clock: Clock, run: RunOffLoop) -> Provider | None:
    """The provider that the settings name; None where it is `off`. Opens and imports nothing.

    Args:
        run: calls a function in a thread; see `Adapter`.
    """
    if settings.provider == "off":
        return None
    endpoint = Endpoint(
        model=settings.model,
        base_url=settings.base_url,
        api_key=settings.api_key,
        timeout_s=settings.timeout_s,
        response_format=settings.response_format,
        thinking_tokens=settings.thinking_tokens,
    )
    if settings.provider == "gemini":
        return GeminiProvider(endpoint, clock=clock, run=run)
    return OpenAIProvider(
        endpoint, clock=clock, run=run, max_tokens_field=settings.max_tokens_field
    )
