"""The benchmark beside a model that hangs: it runs, and says what it saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import llm_hanging


def test_two_servers_are_measured_in_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--count 300 --queries 20 --type FLAT --connections 4 --rounds 1 --seconds 0.4"
    assert llm_hanging.main([*words.split(), "--shared", str(tmp_path)]) == 0
    off, hanging, ratio = capsys.readouterr().out.splitlines()
    assert off.strip().startswith("off: ")
    assert hanging.strip().startswith("hanging: ")
    assert ratio.startswith("hanging / off: ")
    # It was asked: two calls at a time are what the worker begins.
    assert ratio.endswith(" 2 questions were taken")
