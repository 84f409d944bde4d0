"""Rows that are written over while a file is copied: the copy has them as they were."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pyrope.storage.kept_rows import KeptRows, Spool
from pyrope.storage.vector_file import VectorFile


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path)
    yield spool
    spool.close()


def fail(error: OSError) -> None:
    raise AssertionError(error)


def filled(dim: int, rows: int) -> VectorFile:
    file = VectorFile.in_memory(dim, "test")
    file.ensure(rows)
    numbers = np.arange(file.capacity * dim, dtype=np.float32)
    file.write(np.arange(file.capacity), numbers.reshape(file.capacity, dim))
    return file


writes = st.lists(st.sets(st.integers(0, 39), min_size=1, max_size=6), max_size=2)
steps = st.lists(st.tuples(st.floats(0.01, 1), writes, writes), max_size=6)


@given(dim=st.sampled_from([1, 3, 100, 5000]), steps=steps)
def test_whatever_is_written_over_meanwhile_the_copy_is_of_the_moment(
    tmp_path_factory: pytest.TempPathFactory,
    dim: int,
    steps: list[tuple[float, list[set[int]], list[set[int]]]],
) -> None:
    file = filled(dim, 40)
    spool = Spool(tmp_path_factory.getbasetemp())
    kept = KeptRows(file.view(), spool, threading.Lock(), fail)
    file.watch(kept.keep)
    before = file.view().copy().view(np.uint8).ravel()
    copied: list[NDArray[np.uint8]] = []
    at = 0
    for share, early, late in (*steps, (1.0, [{0, 39}], [{1, 38}])):
        block_bytes = int(share * (len(before) - at))
        overwrite(file, early)
        block = file.view().view(np.uint8).ravel()[at : at + block_bytes].copy()
        overwrite(file, late)
        if len(block):
            kept.put_back(at, block)
        copied.append(block)
        at += len(block)
    assert np.array_equal(np.concatenate(copied), before)
    spool.close()
    file.close()


def overwrite(file: VectorFile, writes: list[set[int]]) -> None:
    for slots in writes:
        file.write(np.array(sorted(slots)), np.full((len(slots), file.dim), -1, np.float32))


def test_rows_behind_the_end_of_the_file_at_that_moment_are_not_kept(spool: Spool) -> None:
    file = filled(4, 10)
    capacity = file.capacity
    kept = KeptRows(file.view(), spool, threading.Lock(), fail)
    file.watch(kept.keep)
    file.write(np.array([capacity, capacity + 5]), np.ones((2, 4), np.float32))
    assert not kept._kept
    assert kept.nbytes == capacity * 16
    file.close()


def test_rows_that_the_copy_is_past_are_not_kept(spool: Spool) -> None:
    file = filled(4, 10)
    kept = KeptRows(file.view(), spool, threading.Lock(), fail)
    file.watch(kept.keep)
    kept.put_back(0, np.zeros(5 * 16, np.uint8))
    file.write(np.array([4, 5]), np.ones((2, 4), np.float32))
    assert list(kept._kept) == [5]
    file.close()


def test_a_file_that_nobody_copies_any_more_is_written_to_without_keeping(spool: Spool) -> None:
    file = filled(4, 10)
    kept = KeptRows(file.view(), spool, threading.Lock(), fail)
    file.watch(kept.keep)
    file.watch(None)
    file.write(np.array([1]), np.ones((1, 4), np.float32))
    assert not kept._kept
    file.close()


def test_a_row_that_cannot_be_kept_is_told_of_and_written_over_all_the_same(spool: Spool) -> None:
    class FullSpool(Spool):
        def append(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

    file = filled(4, 10)
    failures: list[OSError] = []
    full = FullSpool(Path("/tmp"))  # noqa: S108 - nothing is put there
    kept = KeptRows(file.view(), full, threading.Lock(), failures.append)
    file.watch(kept.keep)
    file.write(np.array([1]), np.ones((1, 4), np.float32))
    assert [error.errno for error in failures] == [28]
    assert (file.view()[1] == 1).all()
    full.close()
    file.close()


def test_what_does_not_fit_memory_goes_to_a_file_and_comes_back(spool: Spool) -> None:
    data = [bytes([number]) * 2**20 for number in range(20)]
    places = [spool.append(one) for one in data]
    assert spool._file._rolled  # type: ignore[attr-defined]  # it is there, undocumented
    assert [spool.read(at, 2**20) for at in places] == data
