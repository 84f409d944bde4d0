"""Embedders by name, as the settings describe them."""

from __future__ import annotations

from collections.abc import Callable

from pyrope.config import EmbedSettings
from pyrope.embed.embedder import Embedder
from pyrope.embed.gemini import GeminiEmbedder
from pyrope.embed.openai_compatible import OpenAIEmbedder
from pyrope.embed.remote import RemoteOptions
from pyrope.embed.runner import Run
from pyrope.embed.wordllama import WordLlamaEmbedder
from pyrope.errors import CommandError

_REMOTE = {"gemini": GeminiEmbedder, "openai": OpenAIEmbedder}
NAMES = ("wordllama", *_REMOTE)
"""Of all embedders there are, configured or not."""


def make_embedder(
    name: str, settings: EmbedSettings, *, run: Run, wall: Callable[[], float]
) -> Embedder:
    """The embedder of that name, not started.

    Raises:
        CommandError: there is none, or the settings do not say which model is meant.
    """
    if name == "wordllama":
        return WordLlamaEmbedder(run)
    if name not in _REMOTE:
        raise CommandError(f"invalid EMBEDDER: one of {', '.join(NAMES)} is expected")
    model: str = getattr(settings, f"{name}_model")
    if not model:
        raise CommandError(
            f"the embedder {name} is not configured: the setting embed.{name}_model is empty"
        )
    key = getattr(settings, f"{name}_api_key")
    options = RemoteOptions(
        model=model,
        base_url=getattr(settings, f"{name}_base_url") or None,
        api_key=None if key is None else key.get_secret_value(),
        dim=getattr(settings, f"{name}_dim"),
        timeout_s=settings.timeout_s,
        parallel=settings.parallel_calls,
    )
    return _REMOTE[name](options, run, wall)


def price_of(name: str, settings: EmbedSettings) -> float:
    """Cost units of 1,000 tokens."""
    price: float = getattr(settings, f"{name}_price")
    return price
