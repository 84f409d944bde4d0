"""The chained log: what was appended is there, in order, and nothing else is taken for it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.errors import MisconfError
from pyrope.storage import chained_log
from pyrope.storage.chained_entry import EMPTY, MAX_LINE_BYTES, Head, LogEntry
from pyrope.storage.chained_files import MAX_PAGE, read, read_newest
from pyrope.storage.chained_log import TORN_LINE_EVENT, ChainedLog
from pyrope.storage.chained_verify import verify
from pyrope.storage.store import StorageError
from storage.chained_workload import ROTATE_BYTES
from storage.store_samples import open_descriptors

_TESTS = Path(__file__).parents[1]


def opened(folder: Path, *, rotate_bytes: int = 10**6, expect: Head | None = None) -> ChainedLog:
    return ChainedLog.open(folder, rotate_bytes=rotate_bytes, at=1.0, expect=expect)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[ChainedLog]:
    log = opened(tmp_path / "log")
    yield log
    log.close()


def numbers(entries: list[LogEntry]) -> list[object]:
    return [entry.payload.get("number") for entry in entries]


def fill(log: ChainedLog, count: int) -> Head:
    for number in range(log.head.seq + 1, log.head.seq + 1 + count):
        log.append([{"number": number}], 2.0)
    return log.head


def last_file(folder: Path) -> Path:
    return max(folder.glob("*.jsonl"))


def content_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_entries_are_appended_in_order_and_read_by_page(log: ChainedLog) -> None:
    assert log.head == EMPTY
    head = log.append([{"number": 1}, {"number": 2}], 1714521600.5)
    assert log.head == head
    assert head.seq == 2
    fill(log, 3)
    assert numbers(log.read(0, 100)) == [1, 2, 3, 4, 5]
    assert numbers(log.read(2, 2)) == [3, 4]
    assert numbers(log.read(5, 2)) == []
    assert numbers(log.read_newest(None, 2)) == [5, 4]
    assert numbers(log.read_newest(3, 100)) == [2, 1]
    assert numbers(log.read_newest(0, 5)) == []
    first, second = log.read(0, 2)
    assert first.at == "2024-05-01T00:00:00.500000Z"
    assert first.prev == EMPTY.hash
    assert second.prev == first.hash
    assert head == Head(2, second.hash)


def test_an_append_of_nothing_writes_nothing(log: ChainedLog, tmp_path: Path) -> None:
    assert log.append([], 1.0) == EMPTY
    assert list((tmp_path / "log").iterdir()) == []


def test_a_payload_that_is_refused_refuses_the_whole_append(log: ChainedLog) -> None:
    head = fill(log, 1)
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        log.append([{"number": 2}, {"number": b"3"}], 1.0)
    with pytest.raises(ValueError, match="no time of day"):
        log.append([{"number": 2}], float("nan"))
    assert log.head == head
    assert numbers(log.read(0, 10)) == [1]


def test_an_append_has_a_limit(log: ChainedLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chained_log, "MAX_APPEND_BYTES", 2_000)
    with pytest.raises(ValueError, match="at most 2000 bytes"):
        log.append([{"number": number} for number in range(20)], 1.0)
    assert log.head == EMPTY


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 2_000), max_size=6) | st.none(), max_size=12),
    st.integers(1, 4_000),
)
def test_batches_of_any_size_survive_reopens_and_rotation(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int] | None], rotate_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = opened(folder, rotate_bytes=rotate_bytes)
    expected = []
    for batch in batches:
        if batch is None:  # a reopen
            head = log.head
            log.close()
            log = opened(folder, rotate_bytes=rotate_bytes, expect=head)
            assert log.head == head
            continue
        payloads: list[dict[str, object]] = [{"text": "x" * length} for length in batch]
        log.append(payloads, 1.0)
        expected += payloads
    assert [entry.payload for entry in log.read(0, MAX_PAGE)] == expected
    for after in range(0, len(expected), 3):
        page = [entry.payload for entry in log.read(after, 4)]
        assert page == expected[after : after + 4]
        page = [entry.payload for entry in log.read_newest(after + 1, 4)]
        assert page == expected[max(0, after - 4) : after][::-1]
    log.close()
    report = verify(folder, log.head)
    assert report.is_sound
    assert report.entries == len(expected)
    assert report.head == log.head
    for path in folder.iterdir():
        # One append is never in two files; a larger one than a file is in one of its own.
        assert path.stat().st_size <= rotate_bytes or path.read_bytes().count(b"\n") <= 6


def test_files_are_private_and_their_names_are_in_order(tmp_path: Path) -> None:
    log = opened(tmp_path / "a" / "log", rotate_bytes=600)
    fill(log, 12)
    log.close()
    paths = sorted((tmp_path / "a" / "log").iterdir())
    assert len(paths) == 6
    assert [path.name for path in paths[:2]] == [
        "00000000000000000001.jsonl",
        "00000000000000000003.jsonl",
    ]
    assert (tmp_path / "a" / "log").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)


def test_opening_reads_the_end_of_the_last_file_only(tmp_path: Path) -> None:
    log = opened(tmp_path, rotate_bytes=10**7)
    log.append([{"number": n, "text": "x" * 1_000} for n in range(1, 1_201)], 1.0)
    head = log.append([{"number": 1_201}], 1.0)
    log.close()
    (path,) = tmp_path.iterdir()
    with path.open("r+b") as file:
        # What is in front is damaged, which verify finds and no start has to wait for.
        file.write(b"????")
    log = opened(tmp_path, rotate_bytes=10**7, expect=head)
    assert log.head == head
    fill(log, 1)
    log.close()
    (problem,) = verify(tmp_path).problems
    assert problem.line == 1
    # What is at the end is named by its line in the file.
    with path.open("r+b") as file:
        file.seek(-30, os.SEEK_END)
        file.write(b"????")
    with pytest.raises(StorageError, match="line 1202: the line has been altered"):
        opened(tmp_path)


def test_a_file_that_was_begun_and_never_written_to_is_used(tmp_path: Path) -> None:
    log = opened(tmp_path)
    head = fill(log, 3)
    log.close()
    (tmp_path / "00000000000000000004.jsonl").touch()
    log = opened(tmp_path, expect=head)
    fill(log, 2)
    log.close()
    assert numbers(read(tmp_path, 0, 10)) == [1, 2, 3, 4, 5]
    assert verify(tmp_path).is_sound


@pytest.mark.parametrize("kept", [1, 50, -1])
@pytest.mark.parametrize("is_alone", [True, False])
def test_a_line_cut_short_is_cut_off_and_the_log_says_so(
    tmp_path: Path, kept: int, *, is_alone: bool
) -> None:
    log = opened(tmp_path, rotate_bytes=1 if is_alone else 10**6)
    before = fill(log, 3)
    fill(log, 1)
    log.close()
    path = last_file(tmp_path)
    content = path.read_bytes()
    start = content.rstrip(b"\n").rfind(b"\n") + 1
    torn = content[start:][:kept]
    path.write_bytes(content[:start] + torn)
    log = opened(tmp_path, expect=before)
    assert log.torn_bytes == len(torn)
    (entry,) = log.read(3, 10)
    assert entry.payload["event"] == TORN_LINE_EVENT
    assert entry.payload["bytes"] == len(torn)
    assert entry.payload["file"] == path.name
    fill(log, 1)
    log.close()
    assert numbers(read(tmp_path, 0, 10)) == [1, 2, 3, None, 5]
    assert verify(tmp_path, before).is_sound
    assert opened(tmp_path).torn_bytes == 0


def test_a_line_that_is_torn_and_longer_than_any_entry_is_refused(tmp_path: Path) -> None:
    log = opened(tmp_path)
    fill(log, 2)
    log.close()
    path = last_file(tmp_path)
    with path.open("ab") as file:
        file.write(bytes(MAX_LINE_BYTES))
    content = path.read_bytes()
    with pytest.raises(StorageError, match=r"line 3: the line is longer than any entry"):
        opened(tmp_path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [0, 1, 2])
def test_an_altered_line_at_the_end_is_refused_and_nothing_is_changed(
    tmp_path: Path, line: int
) -> None:
    log = opened(tmp_path)
    fill(log, 3)
    log.close()
    path = last_file(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"number":', b'"Number":')
    path.write_bytes(b"".join([*lines, b"torn"]))
    with pytest.raises(
        StorageError, match=rf"jsonl, line {line + 1}: the line has been altered.*doctor.*backup"
    ):
        opened(tmp_path)
    assert path.read_bytes() == b"".join([*lines, b"torn"])


def test_a_line_behind_the_end_that_does_not_follow_is_refused(tmp_path: Path) -> None:
    log = opened(tmp_path / "one")
    fill(log, 3)
    log.close()
    other = opened(tmp_path / "other")
    other.append([{"other": n} for n in range(4)], 1.0)
    other.close()
    strange = last_file(tmp_path / "other").read_bytes().splitlines(keepends=True)
    path = last_file(tmp_path / "one")
    good = path.read_bytes()
    for line, what in ((strange[3], "does not follow"), (strange[1], "entry 2 is where entry 4")):
        path.write_bytes(good + line)
        with pytest.raises(StorageError, match=f"line 4: .*{what}"):
            opened(tmp_path / "one")


@pytest.mark.parametrize("rotate_bytes", [10**6, 500])
def test_a_log_that_ends_before_the_expected_head_is_refused(
    tmp_path: Path, rotate_bytes: int
) -> None:
    log = opened(tmp_path, rotate_bytes=rotate_bytes)
    head = fill(log, 6)
    log.close()
    path = last_file(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    for end in (b"", lines[-1][:40]):
        cut = b"".join(lines[:-1]) + end
        path.write_bytes(cut)
        with pytest.raises(StorageError, match=r"ends with entry 5, and had entry 6.*backup"):
            opened(tmp_path, rotate_bytes=rotate_bytes, expect=head)
        assert path.read_bytes() == cut
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(StorageError, match="ends with entry 0, and had entry 6"):
        opened(tmp_path, expect=head)


@pytest.mark.parametrize("rotate_bytes", [10**6, 500])
def test_a_log_that_has_gone_on_behind_the_expected_head_is_opened(
    tmp_path: Path, rotate_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chained_log, "_PAGE", 2)
    log = opened(tmp_path, rotate_bytes=rotate_bytes)
    heads = [EMPTY, *(fill(log, 1) for _ in range(9))]
    log.close()
    for head in heads:
        opened(tmp_path, expect=head).close()
        wrong = Head(head.seq, "ab" * 32)
        if head.seq:
            with pytest.raises(StorageError, match=f"another entry {head.seq} than it had"):
                opened(tmp_path, expect=wrong)


def test_what_is_altered_between_the_expected_head_and_the_end_is_found(tmp_path: Path) -> None:
    log = opened(tmp_path, rotate_bytes=1)
    heads = [fill(log, 1) for _ in range(5)]
    log.close()
    path = tmp_path / "00000000000000000003.jsonl"
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"number":3', b'"number":9'))
    with pytest.raises(StorageError, match=r"3.jsonl, line 1: the line has been altered"):
        opened(tmp_path, expect=heads[1])
    path.unlink()
    with pytest.raises(StorageError, match=r"4.jsonl, line 1: entries 3 to 3 before it are miss"):
        opened(tmp_path, expect=heads[1])
    for number in (1, 2):
        (tmp_path / f"0000000000000000000{number}.jsonl").unlink()
    with pytest.raises(StorageError, match="has no entry 3 any more"):
        opened(tmp_path, expect=heads[2])


def test_a_missing_file_in_front_of_an_empty_one_is_noticed(tmp_path: Path) -> None:
    log = opened(tmp_path, rotate_bytes=1)
    fill(log, 3)
    log.close()
    (tmp_path / "00000000000000000004.jsonl").touch()
    (tmp_path / "00000000000000000003.jsonl").unlink()
    with pytest.raises(StorageError, match=r"4.jsonl, line 1: entries 3 to 3 before it are miss"):
        opened(tmp_path)
    (tmp_path / "00000000000000000002.jsonl").write_bytes(b"torn")
    with pytest.raises(StorageError, match="the file has no end, and another follows"):
        opened(tmp_path)


def test_old_files_may_be_put_elsewhere(tmp_path: Path) -> None:
    log = opened(tmp_path, rotate_bytes=1)
    head = fill(log, 6)
    log.close()
    for number in (1, 2):
        (tmp_path / f"0000000000000000000{number}.jsonl").unlink()
    log = opened(tmp_path, expect=head)
    fill(log, 1)
    assert numbers(log.read(0, 3)) == [3, 4, 5]
    assert numbers(read(tmp_path, 0, 3)) == [3, 4, 5]
    assert numbers(log.read_newest(None, 100)) == [7, 6, 5, 4, 3]
    log.close()


def fail(*_: object) -> None:
    raise OSError(28, "No space left on device")


@contextmanager
def failing(*names: str) -> Iterator[None]:
    """System calls of the log that answer as a full disk does."""
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(f"pyrope.storage.chained_log.os.{name}", fail)
        yield


def half_a_write(descriptor: int, data: memoryview) -> int:
    if len(data) > 100:
        return os.pwrite(descriptor, data[:100], 0)
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("rotate_bytes", "call"),
    [
        (10**6, "write"),
        (10**6, "fdatasync"),
        (10**6, "half of a write"),
        # Of a file that is begun.
        (1, "write"),
        (1, "fdatasync"),
        (1, "half of a write"),
        (1, "fsync"),
        (1, "open"),
    ],
)
def test_an_append_that_fails_leaves_the_log_as_it_was(
    tmp_path: Path, rotate_bytes: int, call: str
) -> None:
    log = opened(tmp_path, rotate_bytes=rotate_bytes)
    head = fill(log, 3)
    before = content_of(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        if call == "half of a write":
            patch.setattr("pyrope.storage.chained_log.os.write", half_a_write)
        else:
            patch.setattr(f"pyrope.storage.chained_log.os.{call}", fail)
        for _ in range(2):
            with pytest.raises(MisconfError, match=r"nothing of this was kept.*No space left"):
                log.append([{"number": 4}, {"number": 5}], 1.0)
    assert log.head == head
    assert content_of(tmp_path) == before
    assert numbers(log.read(0, 10)) == [1, 2, 3]
    fill(log, 2)
    log.close()
    assert numbers(read(tmp_path, 0, 10)) == [1, 2, 3, 4, 5]
    assert verify(tmp_path, head).is_sound


def test_what_cannot_be_cut_off_at_once_is_cut_off_by_the_next_append(log: ChainedLog) -> None:
    fill(log, 2)
    with failing("fdatasync", "ftruncate"):
        for _ in range(2):
            with pytest.raises(MisconfError):
                log.append([{"number": 3, "text": "x" * 500}], 1.0)
    assert numbers(log.read(0, 10)) == [1, 2]
    fill(log, 1)
    assert numbers(log.read(0, 10)) == [1, 2, 3]
    assert numbers(log.read_newest(None, 10)) == [3, 2, 1]


def test_a_full_disk_is_no_reason_not_to_open_a_log_that_is_torn(tmp_path: Path) -> None:
    log = opened(tmp_path)
    fill(log, 2)
    log.close()
    with last_file(tmp_path).open("ab") as file:
        file.write(b"torn")
    with failing("write"):
        log = opened(tmp_path)
        assert log.head.seq == 2
    log.append([{"number": 4}], 1.0)
    assert numbers(log.read(0, 10)) == [1, 2, None, 4]
    assert log.read(2, 1)[0].payload["event"] == TORN_LINE_EVENT
    log.close()


@pytest.mark.parametrize("what", ["removed", "replaced", "cut", "longer"])
def test_a_file_that_someone_else_changes_is_not_written_to_any_more(
    log: ChainedLog, tmp_path: Path, what: str
) -> None:
    fill(log, 3)
    path = last_file(tmp_path / "log")
    content = path.read_bytes()
    if what in ("removed", "replaced"):
        path.unlink()
    if what == "replaced":
        path.write_bytes(content)
    if what == "cut":
        os.truncate(path, 100)
    if what == "longer":
        path.write_bytes(content + b"more\n")
    for _ in range(2):
        with pytest.raises(MisconfError, match=r"was changed by someone other.*doctor"):
            log.append([{"number": 4}], 1.0)
    assert log.head.seq == 3


def test_a_log_is_open_in_one_server_at_a_time(log: ChainedLog, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="in use by another server"):
        opened(tmp_path / "log")
    log.close()
    opened(tmp_path / "log").close()


def test_a_closed_log_leaves_nothing_open_and_takes_nothing(tmp_path: Path) -> None:
    before = open_descriptors()
    log = opened(tmp_path, rotate_bytes=1)
    fill(log, 3)
    assert open_descriptors() == before + 2
    log.close()
    log.close()
    assert open_descriptors() == before
    with pytest.raises(RuntimeError, match="is closed"):
        log.append([{"number": 4}], 1.0)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot be used"):
        opened(tmp_path / "log")


@pytest.mark.parametrize("limit", [0, -1, MAX_PAGE + 1])
def test_a_page_has_a_limit(log: ChainedLog, tmp_path: Path, limit: int) -> None:
    pages: list[Callable[[], object]] = [
        lambda: log.read(0, limit),
        lambda: log.read_newest(None, limit),
        lambda: read(tmp_path, 0, limit),
        lambda: read_newest(tmp_path, None, limit),
    ]
    for page in pages:
        with pytest.raises(ValueError, match=f"1 to {MAX_PAGE} entries, not {limit}"):
            page()
    with pytest.raises(ValueError, match="numbered from 1"):
        log.read(-1, 1)


def test_reading_what_was_altered_is_refused(log: ChainedLog, tmp_path: Path) -> None:
    fill(log, 3)
    path = last_file(tmp_path / "log")
    path.write_bytes(path.read_bytes().replace(b'"number":2', b'"number":7'))
    pages: list[Callable[[], object]] = [
        lambda: log.read(0, 10),
        lambda: log.read_newest(None, 3),
        lambda: read(tmp_path / "log", 1, 1),
    ]
    for page in pages:
        with pytest.raises(StorageError, match="line 2: the line has been altered"):
            page()
    assert numbers(log.read(2, 10)) == [3]


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        read(tmp_path / "no", 0, 1)
    with pytest.raises(StorageError, match="cannot be read"):
        read_newest(tmp_path / "no", None, 1)


def test_a_reader_beside_the_server_sees_whole_entries_only(tmp_path: Path) -> None:
    log = opened(tmp_path)
    fill(log, 2)
    with last_file(tmp_path).open("ab") as file:
        file.write(b'{"half')
    assert numbers(read(tmp_path, 0, 10)) == [1, 2]
    assert numbers(read_newest(tmp_path, None, 10)) == [2, 1]
    log.close()


def test_appends_of_many_threads_are_one_chain(tmp_path: Path) -> None:
    log = opened(tmp_path, rotate_bytes=3_000)
    started = threading.Barrier(4)

    def work(worker: int) -> None:
        started.wait()
        for number in range(20):
            head = log.append([{"worker": worker, "n": number}, {"worker": worker}], 1.0)
            assert log.read_newest(head.seq + 1, 1)[0].payload == {"worker": worker}

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, worker) for worker in range(4)]:
            future.result()
    log.close()
    entries = read(tmp_path, 0, 1_000)
    assert verify(tmp_path, log.head).is_sound
    for worker in range(4):
        own = [
            entry.payload["n"]
            for entry in entries
            if entry.payload["worker"] == worker and "n" in entry.payload
        ]
        assert own == list(range(20))


def heads_of_child(folder: Path, *arguments: str, kill_after: int = 0) -> list[Head]:
    """Let a child append; kill it after so many heads, unless it kills itself. Heads it printed."""
    command = [sys.executable, "-m", "storage.chained_workload", str(folder), *arguments]
    with subprocess.Popen(command, cwd=_TESTS, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        lines = []
        if kill_after:
            lines = [child.stdout.readline() for _ in range(kill_after)]
            child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines()
    assert child.returncode == -signal.SIGKILL
    return [Head(int(seq), digest.decode()) for seq, digest in map(bytes.split, lines)]


def assert_continues(folder: Path, head: Head) -> ChainedLog:
    """All that was acknowledged is there, with every number; open again."""
    log = opened(folder, rotate_bytes=ROTATE_BYTES, expect=head)
    entries = log.read(0, MAX_PAGE)
    assert [entry.seq for entry in entries] == list(range(1, log.head.seq + 1))
    for entry in entries:
        if "number" in entry.payload:
            assert entry.payload["number"] == entry.seq
        else:
            assert entry.payload["event"] == TORN_LINE_EVENT
    assert verify(folder, head).is_sound
    return log


def test_every_acknowledged_entry_survives_kill_9(tmp_path: Path) -> None:
    for kill_after in (1, 17, 40):
        head = heads_of_child(tmp_path, kill_after=kill_after)[-1]
        log = assert_continues(tmp_path, head)
        # The append under way, and a note of it, at the most.
        assert log.head.seq <= head.seq + 5
        log.close()


@pytest.mark.parametrize("dies_after", [0, 1, 100, 230, 400])
def test_an_append_that_is_killed_leaves_whole_entries(tmp_path: Path, dies_after: int) -> None:
    head = heads_of_child(tmp_path, str(dies_after))[-1]
    content = content_of(tmp_path)
    log = assert_continues(tmp_path, head)
    assert bool(log.torn_bytes) == (not content.endswith(b"\n"))
    log.close()
