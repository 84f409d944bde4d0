"""What vectors take in memory: what is measured, and how it is told."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from benchmarks.harness.memory import library_buffers
from benchmarks.memory import Held, to_markdown

from benchmarks import memory


@pytest.mark.timeout(120)
def test_a_run_prints_a_line_for_each_type_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--count", "3000", "--dims", "16", "--types", "FLAT", "HNSW_SQ8"]
    assert memory.main([*arguments, "--work-dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "FLAT 3,000 × 16",
        "HNSW_SQ8 3,000 × 16",
    ]
    assert not list(tmp_path.iterdir())


def test_the_parts_of_a_line_add_up_to_what_the_server_said() -> None:
    held = Held(
        "IVF_PQ", 1000, 64, nlist=16, pqm=32, measured=10**6, said=900_000, once=0, buffers=0
    )
    cells = [cell.strip() for cell in to_markdown([held]).splitlines()[-1].split("|")[1:-1]]
    assert cells[:4] == ["IVF_PQ 1,000 × 64", "1,000", "900", "0.90"]
    # A code; a number in a list and two copies of the centroids; what is left.
    assert cells[4:7] == ["16", "16", "868"]


def test_a_mapping_that_is_hardly_used_is_a_buffer_and_one_that_is_full_is_not() -> None:
    before = library_buffers(os.getpid())
    reserved = np.empty(2**27, np.uint8)
    reserved[: 2**22] = 1
    assert 2**22 <= library_buffers(os.getpid()) - before < 2**22 + 2**22
    reserved[:] = 1
    assert library_buffers(os.getpid()) == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--count", "4"], "--count must be at least 5"),
        (["--dims", "1"], "--dims must be at least 2"),
        (["--types", "AUTO"], "invalid choice: 'AUTO'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        memory.parse(arguments)
    assert problem in capsys.readouterr().err
