"""Sessions that the documentation shows, typed into the real redis-cli."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from servers import RunningServer

ROOT = Path(__file__).parent.parent.parent
PROMPT = "127.0.0.1:7379> "
# Of floats, the last digits depend on the processor.
FLOAT = re.compile(r"\d+\.\d{6,}")
# Of what is remembered: drawn at random.
ENTRY = re.compile(r'^"[0-9a-f]{16}"$', re.MULTILINE)


def session(page: str) -> tuple[str, str]:
    """What a page has a person type, and what it says that they see."""
    typed, shown = [], []
    for block in re.findall(r"^```\n(.*?)^```$", page, re.DOTALL | re.MULTILINE):
        if block.startswith(PROMPT):
            for line in block.splitlines(keepends=True):
                if line.startswith(PROMPT):
                    typed.append(line.removeprefix(PROMPT))
                else:
                    shown.append(line)
    return "".join(typed), "".join(shown)


def rounded(text: str) -> str:
    return ENTRY.sub("an entry", FLOAT.sub(lambda found: f"{float(found[0]):.4f}", text))


@pytest.mark.parametrize("name", ["examples/redis_cli_session.md", "README.md"])
def test_a_session_reads_as_it_is_shown(server: RunningServer, name: str) -> None:
    typed, shown = session((ROOT / name).read_text(encoding="utf-8"))
    assert typed.count("\n") >= 9
    done = subprocess.run(
        ["redis-cli", "-p", str(server.port), "--no-raw"],
        input=typed,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert rounded(done.stdout) == rounded(shown)
