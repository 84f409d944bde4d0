"""Settings of the embedders, which make vectors of texts."""

from __future__ import annotations

import re
from typing import Final, Self

from pydantic import model_validator

from pyrope.config.fields import KIB, MIB, Group, OptionalSecret, Size, setting
from pyrope.config.llm import BASE_URL_PATTERN, MODEL_PATTERN

_KEY: Final = re.compile(r"[\x21-\x7e]{1,4096}")
_REMOTE: Final = ("gemini", "openai")


class EmbedSettings(Group):
    """What makes vectors of texts, for indexes that have an EMBEDDER.

    Wordllama is always there. The other two are once their model is named. A change of a model is a
    change of what vectors mean: an index keeps to the one it was created with.
    """

    text_bytes: Size = setting(
        32 * KIB,
        "Length of one text.",
        unit="bytes",
        ge=16,
        le=64 * KIB,
    )
    queued_texts: int = setting(
        10_000,
        "Texts of one tenant that wait for one embedder; one more is refused with BUSY.",
        ge=1,
        le=1_000_000,
    )
    batch_texts: int = setting(64, "Texts that share a call.", ge=1, le=100)
    cache_bytes: Size = setting(
        32 * MIB,
        "Memory for vectors of texts that were embedded before; 0: none are kept.",
        unit="bytes",
        ge=0,
        le=64 * 1024 * MIB,
    )
    timeout_s: float = setting(
        10,
        "A text that is not embedded after so long is given up with BUSY, and so is a call.",
        unit="s",
        ge=0.05,
        le=600,
    )
    parallel_calls: int = setting(4, "Calls at a time to one embedder behind an API.", ge=1, le=64)
    max_attempts: int = setting(
        3,
        "Calls for the same texts, if those before have failed for a reason that passes.",
        ge=1,
        le=100,
    )
    wordllama_price: float = setting(1000, "Cost of 1,000 tokens.", unit="units", ge=0, le=1e12)
    gemini_model: str = setting(
        "", "Model of the embedder gemini; empty: there is no such embedder.", pattern=MODEL_PATTERN
    )
    gemini_base_url: str = setting(
        "", "Where its API is; empty: Google's own.", pattern=BASE_URL_PATTERN
    )
    gemini_api_key: OptionalSecret = setting(
        None, "Key for its API; with a base_url it may be empty. Set it by environment or file."
    )
    gemini_dim: int = setting(
        0, "Dimension that is asked of it; 0: the model's own.", ge=0, le=65_536
    )
    gemini_price: float = setting(1000, "Cost of 1,000 tokens.", unit="units", ge=0, le=1e12)
    openai_model: str = setting(
        "",
        "Model of the embedder openai, which is anything that speaks its API, such as vLLM and "
        "Ollama; empty: there is no such embedder.",
        pattern=MODEL_PATTERN,
    )
    openai_base_url: str = setting(
        "",
        "Where its API is, such as http://127.0.0.1:11434/v1; empty: OpenAI's own.",
        pattern=BASE_URL_PATTERN,
    )
    openai_api_key: OptionalSecret = setting(
        None, "Key for its API; with a base_url it may be empty. Set it by environment or file."
    )
    openai_dim: int = setting(
        0, "Dimension that is asked of it; 0: the model's own.", ge=0, le=65_536
    )
    openai_price: float = setting(1000, "Cost of 1,000 tokens.", unit="units", ge=0, le=1e12)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name in _REMOTE:
            key = getattr(self, f"{name}_api_key")
            if key is not None and _KEY.fullmatch(key.get_secret_value()) is None:
                raise ValueError(
                    f"embed.{name}_api_key is no key: only printable ASCII without spaces can be"
                )
            if not getattr(self, f"{name}_model"):
                continue
            if key is None and not getattr(self, f"{name}_base_url"):
                raise ValueError(f"embed.{name}_model is set, which needs embed.{name}_api_key too")
        return self
