"""From the settings to a provider."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from pydantic import SecretStr

from pyrope.config import LlmSettings
from pyrope.llm.adapter import T
from pyrope.llm.factory import make_provider
from pyrope.llm.gemini import GeminiProvider
from pyrope.llm.openai_compatible import OpenAIProvider
from pyrope.llm.provider import Prompt, Provider
from pyrope.llm.schemas import VerifyReply
from pyrope.testing.clock import ManualClock
from pyrope.testing.provider_servers import OpenAIServer


async def at_once(function: Callable[[], T]) -> T:
    return function()


def made(settings: LlmSettings) -> Provider | None:
    return make_provider(settings, clock=ManualClock(), run=at_once)


def test_off_is_no_provider() -> None:
    assert made(LlmSettings()) is None


def test_each_provider_is_made_with_what_the_settings_say() -> None:
    settings = LlmSettings(
        provider="gemini",
        model="g1",
        api_key=SecretStr("k"),
        timeout_s=7,
        response_format="text",
        thinking_tokens=3,
    )
    provider = made(settings)
    assert isinstance(provider, GeminiProvider)
    assert (provider.name, provider.model) == ("gemini", "g1")
    endpoint = provider.endpoint
    assert (endpoint.key, endpoint.timeout_s, endpoint.thinking_tokens) == ("k", 7, 3)
    assert endpoint.response_format == "text"
    assert provider.who == "gemini at generativelanguage.googleapis.com"
    provider = made(LlmSettings(provider="openai", model="o1", base_url="http://host:1/v1"))
    assert isinstance(provider, OpenAIProvider)
    assert (provider.name, provider.model, provider.who) == ("openai", "o1", "openai at host:1")


async def test_the_field_for_the_bound_of_tokens_is_passed_on() -> None:
    server = OpenAIServer()
    await server.start()
    settings = LlmSettings(
        provider="openai", model="o1", base_url=server.base_url, max_tokens_field="max_tokens"
    )
    provider = made(settings)
    assert provider is not None
    await provider.start()
    await provider.complete(Prompt("s", "u", VerifyReply, 5))
    assert "max_tokens" in server.asked[0].body
    await provider.close()
    await server.stop()


def test_making_a_provider_imports_no_client() -> None:
    code = """
import sys
from pyrope.clock import SystemClock
from pyrope.config import LlmSettings
from pyrope.llm.factory import make_provider
for provider in ("gemini", "openai"):
    settings = LlmSettings(provider=provider, model="m", api_key="k")
    assert make_provider(settings, clock=SystemClock(), run=None) is not None
import pyrope.llm.tokens
heavy = {"anyio", "google.genai", "httpx2", "openai", "tiktoken"}
print(sorted(heavy & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
