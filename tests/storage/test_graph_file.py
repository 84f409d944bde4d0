"""Saved graphs: whole or not there, and never taken for another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrope.storage.graph_file import (
    GraphMeta,
    SavedGraph,
    load_graph_meta,
    save_graph,
    verify_graph,
)

META = GraphMeta(
    uid=7,
    sequence=100,
    slot_count=90,
    type="HNSW",
    dim=384,
    metric="COSINE",
    m=16,
    ef_construction=200,
)


def writing(content: bytes) -> Callable[[str], None]:
    def write(path: str) -> None:
        Path(path).write_bytes(content)

    return write


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "graph"


def loaded(path: Path) -> SavedGraph:
    saved = load_graph_meta(path)
    assert isinstance(saved, SavedGraph), saved
    return saved


def test_a_saved_graph_is_found_whole(path: Path) -> None:
    content = bytes(range(256)) * 20_000  # more than one block of the digest
    saved = save_graph(path, writing(content), META)
    assert load_graph_meta(path) == saved
    assert saved.meta == META
    assert saved.size == len(content)
    assert saved.file.read_bytes() == content
    assert verify_graph(saved, META) is None


def test_where_nothing_was_saved_the_graph_is_missing(path: Path) -> None:
    assert load_graph_meta(path) == "missing"


def test_saving_again_replaces_the_graph_and_leaves_one_pair_of_files(path: Path) -> None:
    save_graph(path, writing(b"first"), META)
    later = replace(META, sequence=200)
    save_graph(path, writing(b"second"), later)
    assert loaded(path).meta == later
    assert loaded(path).file.read_bytes() == b"second"
    assert len(list(path.parent.iterdir())) == 2
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in path.parent.iterdir())


def test_saving_the_same_bytes_at_a_later_sequence_works(path: Path) -> None:
    save_graph(path, writing(b"same"), META)
    later = replace(META, sequence=200)
    save_graph(path, writing(b"same"), later)
    assert verify_graph(loaded(path), later) is None
    assert loaded(path).meta.sequence == 200


def test_a_save_that_fails_leaves_the_old_graph_and_no_litter(path: Path) -> None:
    old = save_graph(path, writing(b"old"), META)

    def fail(target: str) -> None:
        Path(target).write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        save_graph(path, fail, replace(META, sequence=200))
    assert load_graph_meta(path) == old
    assert verify_graph(old, META) is None
    assert len(list(path.parent.iterdir())) == 2


def test_a_writer_that_writes_nothing_is_an_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_graph(path, lambda _: None, META)
    assert load_graph_meta(path) == "missing"


def test_what_a_crash_left_unfinished_is_cleaned_up_by_the_next_save(path: Path) -> None:
    old = save_graph(path, writing(b"old"), META)
    Path(f"{path}.tmp").write_bytes(b"unfinished")
    Path(f"{path}-0123.bin").write_bytes(b"finished, but its description was not")
    assert load_graph_meta(path) == old
    save_graph(path, writing(b"new"), META)
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        (replace(META, uid=8), "of another index"),
        (replace(META, dim=385), "built with other parameters"),
        (replace(META, metric="L2"), "built with other parameters"),
        (replace(META, m=17), "built with other parameters"),
        (replace(META, ef_construction=100), "built with other parameters"),
        (replace(META, sequence=99), "ahead of the store: at 100, the store at 99"),
        (replace(META, sequence=101, slot_count=1_000), None),
    ],
)
def test_a_graph_is_not_taken_for_one_that_it_is_not(
    path: Path, expected: GraphMeta, reason: str | None
) -> None:
    saved = save_graph(path, writing(b"content"), META)
    assert verify_graph(saved, expected) == reason


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(bit=st.integers(0, 8 * 50 - 1))
def test_every_flipped_bit_of_the_data_is_found(path: Path, bit: int) -> None:
    saved = save_graph(path, writing(b"x" * 50), META)
    content = bytearray(saved.file.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    saved.file.write_bytes(content)
    assert verify_graph(loaded(path), META) == "damaged: its data do not have their checksum"


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.integers(0, 2**16), bit=st.integers(0, 7))
def test_every_flipped_bit_of_the_description_is_found(path: Path, position: int, bit: int) -> None:
    sidecar = Path(f"{path}.meta")
    if not sidecar.exists():
        save_graph(path, writing(b"content"), META)
    content = sidecar.read_bytes()
    damaged = bytearray(content)
    damaged[position % len(damaged)] ^= 1 << bit
    sidecar.write_bytes(damaged)
    assert load_graph_meta(path) == "damaged: its description does not have its checksum"
    sidecar.write_bytes(content)


@pytest.mark.parametrize("content", [b"", b"\n", b"no checksum", b"\xff" * 100_000])
def test_a_description_that_is_none_is_damaged(path: Path, content: bytes) -> None:
    Path(f"{path}.meta").write_bytes(content)
    assert load_graph_meta(path) == "damaged: its description does not have its checksum"


def test_a_graph_cut_short_or_lost_is_named(path: Path) -> None:
    saved = save_graph(path, writing(b"content"), META)
    saved.file.write_bytes(b"conte")
    assert verify_graph(saved, META) == "damaged: 5 bytes long, not 7"
    saved.file.unlink()
    assert verify_graph(saved, META) == "missing"


def test_a_graph_that_cannot_be_read_is_named(path: Path) -> None:
    saved = save_graph(path, writing(b"content"), META)
    saved.file.unlink()
    saved.file.mkdir()
    reason = verify_graph(saved, META)
    assert reason is not None
    assert reason.startswith("unreadable: ")
    Path(f"{path}.meta").unlink()
    Path(f"{path}.meta").mkdir()
    assert str(load_graph_meta(path)).startswith("unreadable: ")
