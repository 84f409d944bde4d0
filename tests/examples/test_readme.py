"""The programs in the README run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from servers import RunningServer

README = Path(__file__).parent.parent.parent / "README.md"
PROGRAMS = re.findall(
    r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
)


@pytest.mark.parametrize("program", PROGRAMS, ids=["redis-py", "typed client"])
def test_a_program_finds_what_it_says(server: RunningServer, program: str) -> None:
    assert program.count("7379") == 1
    for _ in range(2):  # it says that it may be run again
        done = subprocess.run(
            [sys.executable, "-c", program.replace("7379", str(server.port))],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        hits = [line for line in done.stdout.splitlines() if line.startswith("doc:")]
        assert hits[0].startswith("doc:42 1.0")
        assert len(hits) == 3
