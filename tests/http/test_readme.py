"""The session with curl in the README goes as it is shown there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from control import asking, control_server
from tenancy import add

README = Path(__file__).parents[2] / "README.md"


def test_the_session_in_the_readme_goes_as_shown() -> None:
    text = README.read_text(encoding="utf-8")
    section = text.partition("### With curl")[2].partition("###")[0]
    session = re.findall(r"^\$ (.*)\n((?:[^$`].*\n)*)", section, re.MULTILINE)
    assert len(session) == 4
    with control_server() as server, asking(server) as client, server.client() as wire:
        wire.execute_command("VECTOR.CREATE", "films", "DIM", 3)
        add(wire, "films", "alien", 0.9, 0.1, 0.2)
        wire.execute_command("VECTOR.SETATTR", "films", "alien", '{"year": 1979, "genre": "sf"}')
        for line, shown in session:
            command = line.replace(":7380", f":{server.settings.http_port}")
            done = subprocess.run(
                ["bash", "-c", f"{command} --fail-with-body"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout
            pattern = ".*".join(re.escape(part) for part in shown.strip().split("…"))
            assert re.fullmatch(pattern, done.stdout.strip()), done.stdout
        assert client.get("/v1/indexes/books").status_code == 404
