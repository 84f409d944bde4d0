"""What it takes to be there."""

from __future__ import annotations

import subprocess
import sys

import pytest


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_nothing_of_the_server_is_imported_nor_anybody_elses_library() -> None:
    done = run(
        "import sys, pyrope.integrations, pyrope.integrations.function\n"
        "print(*sorted(name for name in sys.modules if name.startswith('pyrope')))\n"
        "print(*sorted(name.split('.')[0] for name in sys.modules))\n"
    )
    own, outside = done.stdout.splitlines()
    rooms = {name.split(".")[1] for name in own.split() if "." in name}
    assert rooms == {"client", "clock", "errors", "integrations", "types"}
    others = {"faiss", "langchain_core", "litellm", "openai", "pydantic", "structlog", "uvloop"}
    assert others.isdisjoint(outside.split())


@pytest.mark.parametrize(
    ("module", "library"),
    [("openai", "openai"), ("langchain", "langchain_core"), ("litellm", "litellm")],
)
def test_without_a_library_it_is_said_what_to_install(module: str, library: str) -> None:
    done = run(f"import sys\nsys.modules[{library!r}] = None\nimport pyrope.integrations.{module}")
    assert done.returncode == 1
    assert f"pip install 'pyrope-server[{module}]'" in done.stderr
