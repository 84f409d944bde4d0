"""What there is to call, and what it takes to be there."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import pyrope.client
from calling import members
from pyrope.client import AsyncClient, Client, families
from pyrope.commands.table import build_table

FAMILIES = ["Cache", "Aliases", "Clusters", "Tenants", "Llm", "Backups", "Responses"]
SOURCES = Path(pyrope.client.__file__).parent
SYNC_ONLY, ASYNC_ONLY = {"close"}, {"aclose"}
# What an option of the client does.
BY_OPTION = {"VECTOR.USE"}


def parameters(function: object) -> list[tuple[str, object, object]]:
    """Names, kinds and defaults."""
    assert callable(function)
    found = inspect.signature(function).parameters.values()
    return [(each.name, each.kind, each.default) for each in found]


@pytest.mark.parametrize(
    ("blocking", "awaiting"),
    [(Client, AsyncClient)]
    + [(getattr(families, name), getattr(families, f"Async{name}")) for name in FAMILIES],
    ids=["Client", *FAMILIES],
)
def test_both_clients_have_the_same_calls(blocking: type, awaiting: type) -> None:
    mine, theirs = members(blocking), members(awaiting)
    assert mine.keys() - SYNC_ONLY == theirs.keys() - ASYNC_ONLY
    for name in mine.keys() - SYNC_ONLY:
        assert parameters(mine[name]) == parameters(theirs[name]), name
        assert mine[name].__doc__, name
        assert theirs[name].__doc__, name
    assert parameters(blocking) == parameters(awaiting)


def test_a_method_shows_the_signature_that_it_is_called_by() -> None:
    with Client() as client:
        assert list(inspect.signature(client.exists).parameters) == ["index", "id"]
        assert list(inspect.signature(client.cache.stats).parameters) == ["index"]
        assert inspect.signature(client.exists).return_annotation == "bool"
        assert client.exists.__name__ == "exists"


def test_every_command_of_ours_has_a_call() -> None:
    written = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES.glob("*.py"))
    missing = [
        word
        for name, command in build_table().items()
        if name.startswith(b"VECTOR.") and command.name not in BY_OPTION
        for word in (command.name, *(sub for sub in command.subcommands if sub != "HELP"))
        if f'"{word}"' not in written
    ]
    assert missing == []


def test_nothing_of_the_server_is_imported() -> None:
    program = (
        "import sys, pyrope.client\n"
        "print(*sorted(name for name in sys.modules if name.startswith('pyrope')))\n"
        "print(*sorted(name.split('.')[0] for name in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    own, outside = done.stdout.splitlines()
    rooms = {name.split(".")[1] for name in own.split() if "." in name}
    assert rooms == {"client", "errors", "types"}
    heavy = {"faiss", "hnswlib", "lmdb", "pydantic", "structlog", "uvloop", "fastapi", "openai"}
    assert heavy.isdisjoint(outside.split())


def test_without_redis_py_it_is_said_what_to_install() -> None:
    program = "import sys\nsys.modules['redis'] = None\nimport pyrope.client"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "pip install 'pyrope-server[client]'" in done.stderr


def test_all_names_are_there() -> None:
    for name in pyrope.client.__all__:
        assert hasattr(pyrope.client, name)
    assert pyrope.client.__all__ == sorted(
        pyrope.client.__all__, key=lambda name: (not name.isupper(), name)
    )
