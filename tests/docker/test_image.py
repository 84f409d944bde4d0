"""The image without Docker: linted, its context complete, started and stopped by its own steps."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
BIN = Path(sys.executable).parent


def tool(name: str) -> Path:
    """A program beside this Python; where it is not installed, the test is skipped."""
    path = BIN / name
    if not path.exists():
        pytest.skip(f"{name} is not installed")
    return path


def run(*command: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing() -> None:
    done = run(tool("hadolint"), "--no-color", DOCKER / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_the_compose_file_is_valid_and_names_files_that_are_there() -> None:
    schema = "vendor.compose-spec"
    done = run(tool("check-jsonschema"), "--builtin-schema", schema, DOCKER / "compose.yaml")
    assert done.returncode == 0, done.stdout
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    mounted = re.findall(r"- (\./[\w/.-]+):", text)
    assert mounted
    for path in mounted:
        assert (DOCKER / path).exists(), path
    assert (DOCKER / "prometheus" / "prometheus.yml").exists()


def test_a_compose_file_that_is_wrong_would_be_noticed(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text("services: {pyrope: {read_only: perhaps, portz: []}}")
    done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", wrong)
    assert done.returncode == 1


def test_all_that_the_build_copies_is_let_through_to_it_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied: set[str] = set()
    for line in (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied.update(line.split()[1:-1])
    assert copied == kept
    for path in kept:
        assert (ROOT / path).exists(), path


def test_the_server_starts_is_healthy_and_drains_as_the_image_has_it() -> None:
    tool("pyrope")
    done = run(sys.executable, DOCKER / "start_image.py", Path(sys.prefix))
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("the image's steps work: built, started, healthy, drained\n")
    assert '"event": "stopped"' in done.stderr


def test_an_unknown_step_of_the_build_is_refused(tmp_path: Path) -> None:
    for words in ((), ("dependencies",), ("polish", tmp_path)):
        done = run(DOCKER / "build-steps.sh", *words)
        assert done.returncode == 2
        assert done.stderr
