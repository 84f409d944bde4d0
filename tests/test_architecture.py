"""Imports point down only, and each library is used in the one place that wraps it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"

FLOORS = (
    {"__init__"},
    {"errors", "types"},
    {
        "client",
        "clock",
        "config",
        "http_client",
        "log",
        "metrics",
        "native_threads",
        "retry_after",
        "timers",
    },
    {"cache", "embed", "engine", "llm", "resp", "semantic", "storage", "tenants", "tracing"},
    {"integrations", "service"},
    {"commands"},
    {"console", "http", "server"},
    {"bench"},
    {"cli"},
    {"__main__"},
)
"""Rooms of `pyrope`, from the ground up. A room imports from floors below its own only."""

OUTSIDE_THE_FLOORS = {"testing"}
"""May import anything; nothing imports it but tests and benchmarks."""

HOMES = {
    "click": {"bench", "cli", "config.__main__", "console"},
    "faiss": {"engine"},
    "fastapi": {"http"},
    "google": {"embed", "llm"},
    "h11": {"http"},
    "hnswlib": {"engine"},
    "httpx2": {"embed", "http_client", "llm"},
    "langchain_core": {"integrations.langchain"},
    "litellm": {"integrations.litellm"},
    "lmdb": {"storage"},
    "openai": {"embed", "integrations.openai", "integrations.openai_streams", "llm"},
    "opentelemetry": {"tracing"},
    "prometheus_client": {"http"},
    "pydantic": {"config", "http", "llm"},
    "pydantic_settings": {"config"},
    "redis": {"client"},
    "starlette": {"http"},
    "structlog": {"log"},
    "tiktoken": {"llm"},
    "time": {"client.awaiting", "client.blocking", "clock"},
    "uvicorn": {"http"},
    "uvloop": {"cli"},
    "wordllama": {"embed"},
}
"""Which rooms or modules may import a library."""

SANS_IO = {"asyncio", "socket", "ssl", "selectors", "threading", "time", "datetime"}
"""What the protocol core must not know."""


def floor_of(room: str) -> int:
    for floor, rooms in enumerate(FLOORS):
        if room in rooms:
            return floor
    raise AssertionError(f"pyrope.{room} stands on no floor: give it one in FLOORS")


def module_name(path: Path) -> str:
    """`pyrope.engine.head` as ``engine.head``; a package by its own name."""
    parts = path.relative_to(SOURCE / "pyrope").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def modules() -> list[Path]:
    return sorted((SOURCE / "pyrope").rglob("*.py"))


def imports_of(text: str) -> Iterator[str]:
    """Full names of all that is imported, inside functions and for type checkers too."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full, not relative"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaches(module: str, text: str) -> list[str]:
    """Sentences on each import of a module that the plan of the house forbids."""
    room = module.partition(".")[0]
    found: list[str] = []
    for name in imports_of(text):
        top, *rest = name.split(".")
        if top == "pyrope":
            if rest and rest != ["__version__"] and rest[0] != room:
                found += _breaches_inside(room, rest[0])
        elif top in HOMES and not HOMES[top] & {room, module} and room not in OUTSIDE_THE_FLOORS:
            found.append(f"only {sorted(HOMES[top])} import {top}")
        if room == "resp" and top in SANS_IO:
            found.append(f"resp is sans-IO and imports {top}")
    return found


def _breaches_inside(room: str, other: str) -> Iterator[str]:
    if room in OUTSIDE_THE_FLOORS:
        return
    if other in OUTSIDE_THE_FLOORS:
        yield f"{room} imports {other}, which is for tests"
    elif floor_of(other) >= floor_of(room):
        yield f"{room} imports {other}, which is not below it"
    elif room == "resp" and other != "errors":
        yield f"resp imports {other}: it may import errors only"
    elif room == "integrations" and other not in {"client", "clock", "errors", "types"}:
        yield f"integrations imports {other}: it is a client's, and may import the client only"
    elif room == "service" and other == "resp":
        yield "service imports resp: bytes are the business of commands and server"


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_imports_point_down_only_and_each_library_has_its_home(path: Path) -> None:
    assert breaches(module_name(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", modules(), ids=module_name)
def test_a_module_uses_one_native_engine_at_most(path: Path) -> None:
    used = {name.split(".")[0] for name in imports_of(path.read_text(encoding="utf-8"))}
    assert len(used & {"faiss", "hnswlib"}) <= 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("types", "from pyrope.clock import Clock"),
        ("types", "import pyrope.errors"),
        ("engine.head", "from pyrope.storage.codec import encode"),
        ("engine.head", "import lmdb"),
        ("engine.head", "from time import monotonic"),
        ("engine.head", "def f():\n    from pyrope.commands import table"),
        ("resp.reader", "from pyrope.types import Metric"),
        ("resp.reader", "import asyncio"),
        ("service.search", "from pyrope import resp"),
        ("service.search", "import faiss"),
        ("server.connection", "from pyrope.testing.clock import ManualClock"),
        ("server.connection", "from pyrope.cli import run"),
        ("server.connection", "import uvloop"),
        ("integrations.openai", "from pyrope.config import Settings"),
        ("integrations.function", "import openai"),
    ],
)
def test_a_forbidden_import_is_noticed(module: str, text: str) -> None:
    assert len(breaches(module, text)) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("engine.head", "import faiss\nfrom pyrope.engine.base import VectorIndex"),
        ("commands.search", "from pyrope.resp.shapes import Map\nfrom pyrope.types import Metric"),
        ("cli", "from pyrope import __version__\nfrom pyrope.server import lifecycle"),
        ("testing.clock", "import time\nfrom pyrope.server import lifecycle"),
    ],
)
def test_an_allowed_import_is_let_through(module: str, text: str) -> None:
    assert breaches(module, text) == []


def test_a_room_that_stands_on_no_floor_is_noticed() -> None:
    with pytest.raises(AssertionError, match="stands on no floor"):
        breaches("engine.head", "from pyrope.attic import box")
