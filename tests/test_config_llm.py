"""The settings of the language model: what belongs together, and what stays secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import SecretStr, ValidationError

from pyrope.cli import main
from pyrope.config import (
    InvalidSettingsError,
    LlmSettings,
    Settings,
    config_names,
    every_setting,
    load_settings,
    toml_in_force,
)
from pyrope.config.llm import ModelPrice, parse_prices

KEY = "kEy-7391-of-the-test"


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in every_setting():
        monkeypatch.delenv(setting.env, raising=False)
    monkeypatch.delenv("PYROPE_CONFIG", raising=False)


def check(*arguments: str) -> tuple[int, str]:
    """Exit code and output of ``pyrope check``."""
    result = CliRunner().invoke(main, ["check", *arguments])
    return result.exit_code, result.output


def test_by_default_nobody_is_asked() -> None:
    assert Settings().llm.provider == "off"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--llm-model", ""], "which needs llm.model too"),
        (["--llm-model", "m"], "which needs llm.api_key too"),
        (
            ["--llm-model", "m", "--llm-api-key", KEY, "--llm-monthly-cost", "5"],
            "which needs a price of m in llm.prices",
        ),
        (
            ["--llm-model", "m", "--llm-api-key", KEY + "\n"],
            "llm.api_key is no key: only printable ASCII without spaces can be",
        ),
        (["--llm-model", "a b"], "llm.model: String should match pattern"),
        (["--llm-base-url", "http://me:pw@host/v1"], "llm.base_url: String should match pattern"),
        (["--llm-base-url", "file:///etc"], "llm.base_url: String should match pattern"),
        (["--llm-prices", "m=1"], "llm.prices: write model=in/out"),
    ],
)
@pytest.mark.parametrize("provider", ["gemini", "openai"])
def test_check_says_what_a_provider_lacks(
    provider: str, arguments: list[str], problem: str
) -> None:
    code, output = check("--llm-provider", provider, *arguments)
    assert code == 2
    assert problem in output
    assert KEY not in output


@pytest.mark.parametrize("provider", ["gemini", "openai"])
def test_with_a_base_url_no_key_is_needed(provider: str) -> None:
    code, output = check(
        *("--llm-provider", provider, "--llm-model", "meta/llama3:8b"),
        *("--llm-base-url", "http://127.0.0.1:11434/v1"),
    )
    assert code == 0
    assert 'model = "meta/llama3:8b"  # flag --llm-model' in output


def test_the_key_is_shown_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYROPE_LLM__API_KEY", KEY)
    loaded = load_settings(None, {"llm": {"provider": "gemini", "model": "m"}})
    key = loaded.settings.llm.api_key
    assert key is not None
    assert key.get_secret_value() == KEY
    shown = [
        repr(loaded.settings),
        str(loaded.settings.llm),
        toml_in_force(loaded.settings, loaded.origins),
        str(config_names(loaded.settings)),
    ]
    assert not [text for text in shown if KEY in text]
    assert "llm-api-key" not in config_names(loaded.settings)
    file = tmp_path / "pyrope.toml"
    file.write_text(f'[llm]\nprovider = "gemini"\napi_key = "{KEY} and more"\n', encoding="utf-8")
    monkeypatch.delenv("PYROPE_LLM__API_KEY")
    with pytest.raises(InvalidSettingsError) as caught:
        load_settings(file)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("url", [f"https://me:{KEY}@host/", f"https://host/v1?key={KEY}"])
@pytest.mark.parametrize("name", ["LLM__BASE_URL", "EMBED__OPENAI_BASE_URL"])
def test_an_address_with_a_key_in_it_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    monkeypatch.setenv(f"PYROPE_{name}", url)
    with pytest.raises(InvalidSettingsError, match="base_url") as caught:
        load_settings(None)
    assert KEY not in str(caught.value)


def test_settings_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValidationError, match="backoff_base_s exceeds"):
        LlmSettings(backoff_base_s=10, backoff_max_s=5)


def test_the_price_in_force_is_that_of_the_model() -> None:
    prices = "a/b:7b = 10/40, gpt-x=2.5/1e3,"
    assert parse_prices(prices) == {"a/b:7b": ModelPrice(10, 40), "gpt-x": ModelPrice(2.5, 1000)}
    key = SecretStr(KEY)
    settings = LlmSettings(provider="openai", model="gpt-x", api_key=key, prices=prices)
    assert settings.price == ModelPrice(2.5, 1000)
    assert LlmSettings(prices=prices).price is None
    limits: Any = {"monthly_cost": 5, "tenant_monthly_cost": 1}
    LlmSettings(provider="openai", model="gpt-x", api_key=key, prices=prices, **limits)


@pytest.mark.parametrize(
    "text", ["m", "m=1", "m=1/", "m=/1", "m=a/b", "m=-1/1", "m=nan/1", "m=inf/1", "m=1/1,m=2/2"]
)
def test_prices_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"model=in/out|must be|two prices"):
        parse_prices(text)
