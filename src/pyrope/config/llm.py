"""Settings of the language model that advises the caches."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, NamedTuple, Self

from pydantic import AfterValidator, model_validator

from pyrope.config.fields import KIB, MIB, Group, OptionalSecret, Size, setting

MODEL_PATTERN: Final = r"^[A-Za-z0-9._:/@+-]{0,200}$"
"""Names of models; empty: none."""

BASE_URL_PATTERN: Final = r"^(https?://[^\s@?#]{1,500})?$"
"""Without a user, whom logs would show, and without a query; empty: the provider's own."""

_KEY: Final = re.compile(r"[\x21-\x7e]{1,4096}")
_PRICE: Final = re.compile(r"(?P<model>[^\s,=]+)\s*=\s*(?P<tokens_in>[^/]+)/(?P<tokens_out>[^/]+)")
_MOST_PRICE: Final = 1e18

Provider = Literal["off", "gemini", "openai"]
ResponseFormat = Literal["json_schema", "json_object", "text"]
MaxTokensField = Literal["max_completion_tokens", "max_tokens"]


class ModelPrice(NamedTuple):
    """Cost units of 1,000 tokens that a model reads, and of 1,000 that it writes."""

    tokens_in: float
    tokens_out: float


def parse_prices(text: str) -> dict[str, ModelPrice]:
    """Read ``model=in/out, model=in/out``.

    Raises:
        ValueError: the text is not that, names a model twice, or a price is no number from 0 on.
    """
    prices: dict[str, ModelPrice] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        found = _PRICE.fullmatch(part)
        if found is None:
            raise ValueError(f"write model=in/out, separated by commas; this is not so: {part!r}")
        model = found["model"]
        try:
            price = ModelPrice(float(found["tokens_in"]), float(found["tokens_out"]))
        except ValueError:
            raise ValueError(f"the prices of {model} must be numbers") from None
        if not all(0 <= each <= _MOST_PRICE for each in price):
            raise ValueError(f"the prices of {model} must be between 0 and {_MOST_PRICE:g}")
        if model in prices:
            raise ValueError(f"{model} has two prices")
        prices[model] = price
    return prices


def _check_prices(text: str) -> str:
    parse_prices(text)
    return text


Prices = Annotated[str, AfterValidator(_check_prices)]


class LlmSettings(Group):
    """The language model that advises the caches, off the path of every request.

    Costs are in the units of `docs/tenants.md`: a unit is a microsecond of a core. A month is one
    of UTC.
    """

    provider: Provider = setting(
        "off",
        "Who is asked: off (nobody), gemini, or openai: anything that speaks its API, such as "
        "vLLM and Ollama.",
    )
    model: str = setting("", "Name of the model.", pattern=MODEL_PATTERN)
    base_url: str = setting(
        "",
        "Where the API is, for one that is not the provider's own, such as "
        "http://127.0.0.1:11434/v1; empty: the provider's own.",
        pattern=BASE_URL_PATTERN,
    )
    api_key: OptionalSecret = setting(
        None, "Key for the API; with a base_url it may be empty. Set it by environment or file."
    )
    timeout_s: float = setting(
        30, "A call that takes longer has failed.", unit="s", ge=0.05, le=600
    )
    response_format: ResponseFormat = setting(
        "json_schema",
        "How JSON is asked for: by its schema, which the API enforces; as an object (json_object) "
        "or only in words (text) where the API or the model does not know better.",
    )
    max_tokens_field: MaxTokensField = setting(
        "max_completion_tokens",
        "What an OpenAI-compatible API calls the bound on tokens of a reply: Ollama knows "
        "max_tokens only, newer models of OpenAI the other only.",
    )
    thinking_tokens: int = setting(
        2048,
        "Tokens that a reply may take on top of what its answer needs, for models that think "
        "before they write.",
        unit="tokens",
        ge=0,
        le=1_000_000,
    )
    concurrency: int = setting(2, "Calls at a time.", ge=1, le=64)
    requests_per_minute: int = setting(
        60, "Calls in a minute; 0: no limit.", ge=0, le=1_000_000_000
    )
    tokens_per_minute: int = setting(
        100_000,
        "Tokens in a minute, read and written; 0: no limit.",
        unit="tokens",
        ge=0,
        le=10**15,
    )
    monthly_tokens: int = setting(
        0,
        "Tokens in a month, all tenants together; 0: no limit.",
        unit="tokens",
        ge=0,
        le=10**15,
    )
    monthly_cost: float = setting(
        0, "Cost of a month, all tenants together; 0: no limit.", unit="units", ge=0, le=1e18
    )
    tenant_monthly_tokens: int = setting(
        0, "Tokens in a month for each tenant; 0: no limit.", unit="tokens", ge=0, le=10**15
    )
    tenant_monthly_cost: float = setting(
        0, "Cost of a month for each tenant; 0: no limit.", unit="units", ge=0, le=1e18
    )
    prices: Prices = setting(
        "",
        "Prices of models, in units for 1,000 tokens read and for 1,000 written: "
        "model=in/out, model=in/out. A model that is not named costs nothing.",
    )
    max_queued: int = setting(
        10_000,
        "Questions that wait; past it the one of least value goes.",
        ge=1,
        le=1_000_000,
    )
    max_queue_bytes: Size = setting(
        16 * MIB,
        "Memory for questions that wait.",
        unit="bytes",
        ge=64 * KIB,
        le=16 * 1024 * MIB,
    )
    job_ttl_s: float = setting(
        600, "A question that has waited for so long is dropped.", unit="s", ge=1, le=604_800
    )
    max_attempts: int = setting(4, "Calls that one question may take.", ge=1, le=100)
    backoff_base_s: float = setting(
        1,
        "Longest wait before the second call for a question; doubled for each one after it.",
        unit="s",
        ge=0.01,
        le=3600,
    )
    backoff_max_s: float = setting(
        60, "Longest wait before a further call.", unit="s", ge=0.01, le=86_400
    )
    breaker_failures: int = setting(
        5, "Failures in a row after which nobody is asked for a while.", ge=1, le=1_000_000
    )
    breaker_probe_s: float = setting(
        30,
        "How long nobody is asked then, before one call tries again.",
        unit="s",
        ge=0.1,
        le=86_400,
    )
    grace_s: float = setting(
        1, "How long a shutdown waits for calls under way.", unit="s", ge=0, le=60
    )
    text_bytes: Size = setting(
        2 * KIB,
        "Longest text of a client that is shown to the model; nothing is asked about longer ones.",
        unit="bytes",
        ge=16,
        le=8 * KIB,
    )
    min_count: int = setting(
        1,
        "Misses of a query from which it is worth a question. What is kept is not missed: it has "
        "come back so often after it had to go.",
        ge=1,
        le=1_000_000_000,
    )
    min_cost: float = setting(
        0,
        "Cost of answering a query from which it is worth a question; those that are worth most "
        "go first in any case.",
        unit="units",
        ge=0,
        le=1e18,
    )
    alias_ttl_s: float = setting(
        86_400, "Life of an alias that the model proposed.", unit="s", ge=1, le=31_536_000
    )
    alias_confidence_min: float = setting(
        0.7, "What the model says with less confidence than this is dropped.", ge=0, le=1
    )
    advice_floor: float = setting(
        0.25, "Times the TTL of a cluster: the least that advice may make of it.", ge=0.001, le=1
    )
    advice_ceiling: float = setting(
        4.0, "Times the TTL of a cluster: the most that advice may make of it.", ge=1, le=1000
    )
    advice_ttl_s: float = setting(
        3600, "Advice on a cluster is followed for so long.", unit="s", ge=1, le=31_536_000
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        key = self.api_key
        if key is not None and _KEY.fullmatch(key.get_secret_value()) is None:
            raise ValueError("llm.api_key is no key: only printable ASCII without spaces can be")
        if self.backoff_base_s > self.backoff_max_s:
            raise ValueError("llm.backoff_base_s exceeds llm.backoff_max_s")
        if self.provider == "off":
            return self
        if not self.model:
            raise ValueError(f"llm.provider is {self.provider}, which needs llm.model too")
        if key is None and not self.base_url:
            raise ValueError(f"llm.provider is {self.provider}, which needs llm.api_key too")
        if (self.monthly_cost or self.tenant_monthly_cost) and self.price is None:
            raise ValueError(
                f"a monthly cost is limited, which needs a price of {self.model} in llm.prices"
            )
        return self

    @property
    def price(self) -> ModelPrice | None:
        """Of `model`; None where `prices` does not name it."""
        return parse_prices(self.prices).get(self.model)
