"""The settings files that are shipped: valid, and as their comments say."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pyrope.cli import main

CONFIGS = Path(__file__).parents[2] / "configs"


def checked(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What is in force with a file."""
    for variable in ("PYROPE_PORT", "PYROPE_HOST", "PYROPE_CONFIG", "PYROPE_ADMIN_PASSWORD"):
        monkeypatch.delenv(variable, raising=False)
    told = CliRunner().invoke(main, ["check", "--config", str(CONFIGS / name)])
    assert told.exit_code == 0, told.output
    return tomllib.loads(told.stdout)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_each_file_is_valid_and_in_force(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_force = checked(path.name, monkeypatch)
    for name, value in tomllib.loads(path.read_text(encoding="utf-8")).items():
        if isinstance(value, dict):
            assert {key: in_force[name][key] for key in value} == value
        else:
            assert in_force[name] == value


def test_all_of_them_are_there() -> None:
    assert {path.name for path in CONFIGS.glob("*.toml")} == {
        "pyrope.toml",
        "laptop.toml",
        "server.toml",
        "container.toml",
    }


def test_a_laptop_serves_itself_and_the_others_are_protected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert checked("laptop.toml", monkeypatch)["host"] == "127.0.0.1"
    for name in ("server.toml", "container.toml"):
        in_force = checked(name, monkeypatch)
        assert in_force["host"] == "0.0.0.0"  # noqa: S104 - that is why it is protected
        assert in_force["protected_mode"]
        assert not in_force["admin_password"]
        assert in_force["log"]["format"] == "json"
