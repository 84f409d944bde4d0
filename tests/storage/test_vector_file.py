"""VectorFile: rows by slot, written with pwrite, read through a mapping."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrope.storage.vector_file import VectorFile
from storage.store_samples import open_descriptors, rows


@pytest.fixture(params=["on disk", "in memory"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorFile]:
    if request.param == "on disk":
        opened = VectorFile.open(tmp_path / "vectors.f32", 8)
    else:
        opened = VectorFile.in_memory(8, "vectors")
    yield opened
    opened.close()


def test_a_new_file_has_no_rows(file: VectorFile) -> None:
    assert file.capacity == 0
    assert file.view().shape == (0, 8)


def test_written_rows_are_in_the_view_at_their_slots(file: VectorFile) -> None:
    written = rows(range(5))
    file.write(np.array([3, 4, 5, 9, 0]), written)
    assert np.array_equal(file.view()[[3, 4, 5, 9, 0]], written)


def test_rows_never_written_read_as_zeros(file: VectorFile) -> None:
    file.write(np.array([100]), rows([1]))
    assert not file.view()[:100].any()


def test_an_old_view_survives_growth_and_sees_later_writes(file: VectorFile) -> None:
    file.write(np.array([0]), rows([1]))
    old = file.view()
    file.ensure(10 * file.capacity)
    file.write(np.array([0]), rows([2]))
    assert len(file.view()) > len(old)
    assert np.array_equal(old[0], rows([2])[0])


def test_views_outlive_the_file(file: VectorFile) -> None:
    file.write(np.array([0]), rows([1]))
    view = file.view()
    file.close()
    assert np.array_equal(view[0], rows([1])[0])
    assert file.view() is view


def test_a_view_cannot_be_written_to(file: VectorFile) -> None:
    file.ensure(1)
    with pytest.raises(ValueError, match="read-only"):
        file.view()[0] = 1


def test_a_large_file_grows_by_at_most_64_mib(file: VectorFile) -> None:
    file.ensure(2**30 // 32)  # 1 GiB, sparse
    before = file.capacity
    file.ensure(before + 1)
    assert (file.capacity - before) * 32 == 64 * 2**20
    assert file.disk_bytes < 2**20


def test_a_closed_file_refuses_writes_and_closes_twice(file: VectorFile) -> None:
    file.close()
    file.close()
    assert file.disk_bytes == 0
    with pytest.raises(ValueError, match="closed"):
        file.write(np.array([0]), rows([1]))
    with pytest.raises(ValueError, match="closed"):
        file.sync()


@pytest.mark.parametrize(
    ("slots", "vectors"),
    [
        ([0], np.zeros((1, 7), np.float32)),
        ([0, 1], np.zeros((1, 8), np.float32)),
        ([0], np.zeros((1, 8), np.float64)),
        ([-1], np.zeros((1, 8), np.float32)),
        ([3, -2, 1], np.zeros((3, 8), np.float32)),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    file: VectorFile, slots: list[int], vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]
) -> None:
    with pytest.raises(ValueError, match=r"expected float32 rows|negative"):
        file.write(np.array(slots), vectors)
    assert file.capacity == 0


def test_writing_nothing_changes_nothing(file: VectorFile) -> None:
    file.write(np.empty(0, np.int64), np.empty((0, 8), np.float32))
    assert file.capacity == 0


def test_a_dimension_of_zero_is_refused_and_leaks_no_descriptor(tmp_path: Path) -> None:
    before = open_descriptors()
    with pytest.raises(ValueError, match="dimension"):
        VectorFile.open(tmp_path / "vectors.f32", 0)
    assert open_descriptors() == before


def test_nothing_stays_open_once_the_file_and_its_views_are_gone(tmp_path: Path) -> None:
    before = open_descriptors()
    file = VectorFile.open(tmp_path / "vectors.f32", 8)
    file.ensure(10)
    file.ensure(10_000)
    file.close()
    del file
    gc.collect()
    assert open_descriptors() == before


def test_reopening_finds_the_rows_and_ignores_a_partial_last_row(tmp_path: Path) -> None:
    path = tmp_path / "vectors.f32"
    file = VectorFile.open(path, 8)
    file.write(np.array([0, 1]), rows([1, 2]))
    file.close()
    os.truncate(path, 2 * 32 + 5)
    again = VectorFile.open(path, 8)
    assert again.capacity == 2
    assert np.array_equal(again.view(), rows([1, 2]))
    again.close()
    assert path.stat().st_mode & 0o777 == 0o600


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    writes=st.lists(st.lists(st.integers(0, 200), unique=True, max_size=30), max_size=8),
    dim=st.sampled_from([1, 3, 16]),
)
def test_any_order_of_slots_leaves_what_a_dict_would_hold(
    writes: list[list[int]], dim: int
) -> None:
    file = VectorFile.in_memory(dim, "model")
    model: dict[int, int] = {}
    seed = 0
    for slots in writes:
        seeds = list(range(seed, seed + len(slots)))
        seed += len(slots)
        file.write(np.array(slots, np.int64), rows(seeds, dim))
        model |= dict(zip(slots, seeds, strict=True))
    for slot, expected in model.items():
        assert np.array_equal(file.view()[slot], rows([expected], dim)[0])
    file.close()
