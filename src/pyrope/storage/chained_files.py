"""The files of a chained log: their names, their ends, and reading a page of entries.

A file is called after its first entry, ``<seq, 20 digits>.jsonl``, so that names come in the order
of the entries, a file that is missing is noticed, and any entry is found without an index: line n
of a file is entry `first + n - 1`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pyrope.storage.chained_entry import (
    EMPTY,
    MAX_LINE_BYTES,
    AlteredLineError,
    Head,
    LogEntry,
    decode_entry,
)
from pyrope.storage.store import StorageError

MAX_PAGE = 10_000
"""Entries that one call reads."""

_NAME = re.compile(r"([0-9]{20})\.jsonl")

# The longest line, and as much of a longer one as tells that it is longer, behind another.
_TAIL_BYTES = 2 * MAX_LINE_BYTES + 2


@dataclass(frozen=True, slots=True)
class LogFile:
    """One file of a log.

    Attributes:
        path: where it is.
        first: number of the entry in its first line.
    """

    path: Path
    first: int

    def error(self, line: int, what: str) -> StorageError:
        """What to raise where a line is not as it should be; lines count from 1."""
        return StorageError(
            f'{self.path}, line {line}: {what}. "pyrope doctor" tells all that is wrong; bring '
            f"{self.path.parent} back from a backup"
        )


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a file.

    Attributes:
        head: of the last whole line; None: there is no whole line.
        size: bytes up to the end of that line.
        torn_bytes: bytes behind it: a line without an end.
    """

    head: Head | None
    size: int
    torn_bytes: int


def file_path(folder: Path, first: int) -> Path:
    """Where the file is whose first line is entry `first`."""
    return folder / f"{first:020}.jsonl"


def log_files(folder: Path) -> list[LogFile]:
    """The files of a log in order. Raises OSError where the folder cannot be read."""
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted(
        (LogFile(path, int(match[1])) for match, path in found if match),
        key=lambda file: file.first,
    )


def read_tail(file: LogFile) -> Tail:
    """The end of a file; what is in it of whole lines has to fit together.

    Raises:
        StorageError: it does not.
        OSError: the file cannot be read.
    """
    with file.path.open("rb") as stream:
        total = stream.seek(0, os.SEEK_END)
        start = stream.seek(max(0, total - _TAIL_BYTES))
        content = stream.read()
    size = start + content.rfind(b"\n") + 1
    lines = content[: max(0, size - start)].split(b"\n")[:-1]
    if start:
        del lines[:1]  # its beginning is not here
    if total - size >= MAX_LINE_BYTES or (start and not lines):
        # More than an append that was killed can have left.
        raise file.error(_lines_in(file.path) + 1, "the line is longer than any entry")
    if not lines:
        return Tail(None, size, total - size)
    number = 1 if not start else None
    before: Head | None = EMPTY if file.first == 1 and not start else None
    for line in lines:
        if number is None:
            number = _number_of(line, file) or _lines_in(file.path) - len(lines) + 1
        entry = checked_entry(file, number, line, before)
        before = Head(entry.seq, entry.hash)
        number += 1
    return Tail(before, size, total - size)


def _number_of(line: bytes, file: LogFile) -> int | None:
    """Where a line belongs in its file; None: it does not say."""
    try:
        number = decode_entry(line).seq - file.first + 1
    except AlteredLineError:
        return None
    return number if number > 0 else None


def _lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def checked_entry(file: LogFile, number: int, line: bytes, before: Head | None) -> LogEntry:
    """The entry in line `number` (from 1), which has to be the right one for that place.

    Args:
        before: the head up to the line before; None: not known.

    Raises:
        StorageError: it is not.
    """
    try:
        entry = decode_entry(line)
    except AlteredLineError as error:
        raise file.error(number, str(error)) from error
    expected = file.first + number - 1
    if entry.seq != expected:
        raise file.error(number, f"entry {entry.seq} is where entry {expected} should be")
    if before is not None and entry.prev != before.hash:
        raise file.error(number, f"entry {entry.seq} does not follow the entry before it")
    return entry


def read_range(folder: Path, first: int, end: int, before: Head | None = None) -> list[LogEntry]:
    """Entries `first` to `end - 1`, as far as there are such.

    Args:
        before: the head up to entry `first - 1`; None: not known.

    Raises:
        StorageError: one of them is not as it was written, or is missing between others.
        OSError: a file cannot be read.
    """
    files = [file for file in log_files(folder) if file.first < end]
    started = [index for index, file in enumerate(files) if file.first <= first]
    del files[: started[-1] if started else 0]
    entries: list[LogEntry] = []
    for file in files:
        if file is not files[0] and file.first > first:
            raise file.error(1, f"entries {first} to {file.first - 1} before it are missing")
        skipped = max(0, first - file.first)
        with file.path.open("rb") as stream:
            page = islice(stream, skipped, end - file.first)
            for number, line in enumerate(page, skipped + 1):
                if not line.endswith(b"\n"):
                    break  # an append is under way, or one was killed
                entry = checked_entry(file, number, line, before)
                entries.append(entry)
                before = Head(entry.seq, entry.hash)
                first = entry.seq + 1
    return entries


def read(
    folder: Path, after_seq: int, limit: int, *, last_seq: int | None = None
) -> list[LogEntry]:
    """Up to `limit` entries after number `after_seq`, oldest first. For a thread.

    Where the oldest files have been put elsewhere, it begins with the oldest entry there is.

    Args:
        last_seq: number of the last entry that counts; None: whatever is there.

    Raises:
        ValueError: limit is not from 1 to `MAX_PAGE`, or after_seq is negative.
        StorageError: one of the entries is not as it was written, or the files cannot be read.
    """
    check_page(after_seq, limit)
    with _reading(folder):
        files = log_files(folder)
        first = max(after_seq + 1, files[0].first if files else 1)
        end = first + limit
        return read_range(folder, first, end if last_seq is None else min(end, last_seq + 1))


def read_newest(
    folder: Path, before_seq: int | None, limit: int, *, last_seq: int | None = None
) -> list[LogEntry]:
    """Up to `limit` entries before number `before_seq` (None: the last), newest first.

    For a thread.

    Args:
        last_seq: as of `read`.

    Raises:
        As `read`.
    """
    check_page(before_seq or 0, limit)
    with _reading(folder):
        end = 1 + (last_head(folder).seq if last_seq is None else last_seq)
        if before_seq is not None:
            end = min(end, before_seq)
        return read_range(folder, max(1, end - limit), end)[::-1]


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"the log in {folder} cannot be read: {error}") from error


def last_head(folder: Path) -> Head:
    """Where the log ends; a line without an end does not count.

    Raises:
        StorageError: its end is not as it was written.
        OSError: a file cannot be read.
    """
    for file in reversed(log_files(folder)):
        tail = read_tail(file)
        if tail.head is not None:
            return tail.head
    return EMPTY


def check_page(seq: int, limit: int) -> None:
    """Raise ValueError for a page that `read` and `read_newest` do not read."""
    if not 1 <= limit <= MAX_PAGE:
        raise ValueError(f"a page has 1 to {MAX_PAGE} entries, not {limit}")
    if seq < 0:
        raise ValueError(f"entries are numbered from 1; {seq} is before them")
