"""Verifying a chained log: whatever is changed in it is found, and where."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.storage.chained_entry import EMPTY, Head, encode_entry, timestamp
from pyrope.storage.chained_log import ChainedLog
from pyrope.storage.chained_verify import MAX_PROBLEMS, Report, verify
from pyrope.storage.store import StorageError


def made(folder: Path, count: int, rotate_bytes: int = 1_000) -> Head:
    log = ChainedLog.open(folder, rotate_bytes=rotate_bytes, at=1.0)
    for number in range(count):
        log.append([{"number": number}], 1.0)
    log.close()
    return log.head


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Head]:
    """Files of a sound log by name, four lines in each of four and one in the last; its head."""
    folder = tmp_path_factory.mktemp("sound")
    head = made(folder, 17)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    assert [content.count(b"\n") for content in files.values()] == [4, 4, 4, 4, 1]
    return files, head


def verified(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], expect: Head | None = None
) -> Report:
    folder = tmp_path_factory.mktemp("log")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return verify(folder, expect)


def lines_of(files: dict[str, bytes]) -> list[tuple[str, bytes]]:
    return [
        (name, line)
        for name, content in files.items()
        for line in content.splitlines(keepends=True)
    ]


def files_of(lines: list[tuple[str, bytes]], names: list[str]) -> dict[str, bytes]:
    return {name: b"".join(line for own, line in lines if own == name) for name in names}


def test_a_sound_log_has_no_problems(
    tmp_path_factory: pytest.TempPathFactory, sound: tuple[dict[str, bytes], Head]
) -> None:
    files, head = sound
    assert verified(tmp_path_factory, files, head) == Report(5, 17, head, (), 0)
    assert verified(tmp_path_factory, {}) == Report(0, 0, EMPTY, (), 0)
    assert verified(tmp_path_factory, {**files, "notes.txt": b"of someone's"}).is_sound


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_altered_removed_or_added_byte_is_found(
    tmp_path_factory: pytest.TempPathFactory,
    sound: tuple[dict[str, bytes], Head],
    data: st.DataObject,
) -> None:
    files, _ = sound
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    position = data.draw(st.integers(0, len(content) - 1))
    how = data.draw(st.sampled_from(["altered", "removed", "added"]))
    if how == "altered":
        content[position] ^= data.draw(st.integers(1, 255))
    elif how == "removed":
        del content[position]
    else:
        content.insert(position, data.draw(st.sampled_from(b' \n0"}x')))
        if bytes(content) == files[name]:
            return
    line = files[name][:position].count(b"\n") + 1
    report = verified(tmp_path_factory, {**files, name: bytes(content)})
    assert not report.is_sound
    assert report.problems[0].path.name == name
    # A byte added at a line's begin may stand on the end of the line before.
    assert report.problems[0].line in (line, line + 1)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_removed_or_doubled_or_moved_line_is_found(
    tmp_path_factory: pytest.TempPathFactory,
    sound: tuple[dict[str, bytes], Head],
    data: st.DataObject,
) -> None:
    files, head = sound
    lines = lines_of(files)
    first = data.draw(st.integers(0, len(lines) - 1))
    second = data.draw(st.integers(0, len(lines) - 1).filter(lambda n: n != first))
    how = data.draw(st.sampled_from(["removed", "swapped", "copied", "doubled"]))
    if how == "removed":
        del lines[first]
    elif how == "swapped":
        (one, a), (other, b) = lines[first], lines[second]
        lines[first], lines[second] = (one, b), (other, a)
    elif how == "copied":
        lines[first] = (lines[first][0], lines[second][1])
    else:
        lines.insert(first, lines[first])
    changed = files_of(lines, sorted(files))
    report = verified(tmp_path_factory, changed, head)
    assert not report.is_sound
    if how != "removed" or first < len(lines):
        assert not verified(tmp_path_factory, changed).is_sound


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_file_that_is_cut_short_is_found(
    tmp_path_factory: pytest.TempPathFactory,
    sound: tuple[dict[str, bytes], Head],
    data: st.DataObject,
) -> None:
    files, head = sound
    name = data.draw(st.sampled_from(sorted(files)))
    kept = data.draw(st.integers(0, len(files[name]) - 1))
    changed = {**files, name: files[name][:kept]}
    assert not verified(tmp_path_factory, changed, head).is_sound
    # Whole lines that are missing at the very end are what only a remembered head tells.
    is_at_the_end = name == max(files) and (not kept or files[name][kept - 1 : kept] == b"\n")
    assert verified(tmp_path_factory, changed).is_sound == is_at_the_end


def test_a_missing_file_is_found(
    tmp_path_factory: pytest.TempPathFactory, sound: tuple[dict[str, bytes], Head]
) -> None:
    files, head = sound
    for missing in list(files):
        left = {name: content for name, content in files.items() if name != missing}
        report = verified(tmp_path_factory, left, head)
        (problem,) = report.problems
        if missing == max(files):
            assert "ends with entry 16, and had entry 17: its end is missing" in str(problem)
            assert verified(tmp_path_factory, left).is_sound
        else:
            first = int(missing[:20])
            assert f"entries {first} to {first + 3} before it are missing" in str(problem)
            assert report.entries == 13
            assert report.head == head


def test_a_file_under_another_name_is_found(
    tmp_path_factory: pytest.TempPathFactory, sound: tuple[dict[str, bytes], Head]
) -> None:
    files, _ = sound
    names = sorted(files)
    swapped = {**files, names[1]: files[names[2]], names[2]: files[names[1]]}
    assert not verified(tmp_path_factory, swapped).is_sound
    renamed = {("0" * 19 + "7.jsonl" if n == names[1] else n): c for n, c in files.items()}
    assert not verified(tmp_path_factory, renamed).is_sound


def test_a_log_written_anew_from_some_line_on_is_told_by_a_remembered_head(
    tmp_path: Path,
) -> None:
    head = made(tmp_path, 6, rotate_bytes=10**6)
    (path,) = tmp_path.iterdir()
    kept = path.read_bytes().splitlines(keepends=True)[:3]
    at = timestamp(1.0)
    before = EMPTY
    for number in range(3):
        _, before = encode_entry({"number": number}, at, before)
    for _ in range(3):
        line, before = encode_entry({"number": "forged"}, at, before)
        kept.append(line)
    path.write_bytes(b"".join(kept))
    assert verify(tmp_path).is_sound
    (problem,) = verify(tmp_path, head).problems
    assert problem.line == 6
    assert "is another than it was" in str(problem)


def test_a_problem_names_file_and_line_and_the_walk_goes_on_behind_it(tmp_path: Path) -> None:
    made(tmp_path, 9, rotate_bytes=10**6)
    (path,) = tmp_path.iterdir()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"number", b"Number")
    del lines[6]
    path.write_bytes(b"".join(lines))
    report = verify(tmp_path)
    assert [str(problem) for problem in report.problems] == [
        f"{path}, line 3: the line has been altered: its hash is not that of its content",
        f"{path}, line 7: entries 7 to 7 before it are missing",
    ]
    assert report.entries == 7


def test_a_report_names_a_bounded_number_of_problems(tmp_path: Path) -> None:
    (tmp_path / "00000000000000000001.jsonl").write_bytes(b"?\n" * (MAX_PROBLEMS + 5))
    report = verify(tmp_path)
    assert len(report.problems) == MAX_PROBLEMS
    assert report.problems_total == MAX_PROBLEMS + 5
    assert report.head == EMPTY


def test_a_folder_that_cannot_be_read_is_no_sound_log(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        verify(tmp_path / "nowhere")
