"""Walking a whole chained log to find what does not fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pyrope.storage.chained_entry import (
    EMPTY,
    AlteredLineError,
    Head,
    LogEntry,
    decode_entry,
)
from pyrope.storage.chained_files import LogFile, log_files
from pyrope.storage.store import StorageError

MAX_PROBLEMS = 100
"""Problems that a report names."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a log that does not fit.

    Attributes:
        path: the file.
        line: from 1; 0: the file or the log as a whole.
        what: a sentence.
    """

    path: Path
    line: int
    what: str

    def __str__(self) -> str:
        where = f"{self.path}, line {self.line}" if self.line else str(self.path)
        return f"{where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` has found.

    Attributes:
        files: how many there are.
        entries: how many of them are whole.
        head: of the last whole entry.
        problems: the first `MAX_PROBLEMS`, in the order of the log.
        problems_total: all of them.
    """

    files: int
    entries: int
    head: Head
    problems: tuple[Problem, ...]
    problems_total: int

    @property
    def is_sound(self) -> bool:
        return not self.problems_total


def verify(folder: Path, expect: Head | None = None) -> Report:
    """Look at every line of a log. For a thread, or a program of its own; changes nothing.

    Any altered, removed, added or moved byte or line is found, and any missing file, with two
    exceptions: whole lines that are missing at the very end, which `expect` alone can tell, and a
    log that has been written anew from some line on with all its hashes, which `expect` tells if
    it is of an entry behind that line. Where old files have been put elsewhere the report says
    that they are missing.

    To be used while nobody appends: a line that is being written looks torn.

    Args:
        folder: of the log.
        expect: a head that `append` once answered: the log has to contain it. None: not known.

    Raises:
        StorageError: the folder or a file cannot be read.
    """
    walk = _Walk(expect)
    try:
        files = log_files(folder)
        for file in files:
            walk.read(file, is_last=file is files[-1])
    except OSError as error:
        raise StorageError(f"the log in {folder} cannot be read: {error}") from error
    if expect is not None and expect.seq > walk.last_seq:
        walk.add(
            folder,
            0,
            f"the log ends with entry {walk.last_seq}, and had entry {expect.seq}: its end is "
            "missing",
        )
    return Report(len(files), walk.entries, walk.head, tuple(walk.problems), walk.problems_total)


class _Walk:
    """Where the walk is, and what it has found.

    Attributes:
        last_seq: number of the entry before the next line, if all is well.
    """

    def __init__(self, expect: Head | None) -> None:
        self._expect = expect
        # Hash of the entry before; None behind a line that is none.
        self._before: str | None = EMPTY.hash
        self.last_seq = 0
        self.entries = 0
        self.head = EMPTY
        self.problems: list[Problem] = []
        self.problems_total = 0

    def add(self, path: Path, line: int, what: str) -> None:
        self.problems_total += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(path, line, what))

    def read(self, file: LogFile, *, is_last: bool) -> None:
        if file.first != self.last_seq + 1:
            self._add_gap(file.path, 0, file.first)
            self._before = None
            self.last_seq = file.first - 1
        lines = 0
        with file.path.open("rb") as stream:
            for lines, line in enumerate(stream, 1):
                if line.endswith(b"\n"):
                    self._read_line(file.path, lines, line)
                else:
                    self.add(file.path, lines, "the line has no end: its writing was cut short")
        if not lines and not is_last:
            self.add(file.path, 0, "the file is empty, and another follows it")

    def _read_line(self, path: Path, number: int, line: bytes) -> None:
        try:
            entry = decode_entry(line)
        except AlteredLineError as error:
            self.add(path, number, str(error))
            self.last_seq += 1
            self._before = None
            return
        if entry.seq != self.last_seq + 1:
            self._add_gap(path, number, entry.seq)
        elif self._before is not None and entry.prev != self._before:
            self.add(path, number, f"entry {entry.seq} does not follow the entry before it")
        self._check_expected(path, number, entry)
        self.entries += 1
        self.last_seq = entry.seq
        self._before = entry.hash
        self.head = Head(entry.seq, entry.hash)

    def _add_gap(self, path: Path, number: int, seq: int) -> None:
        if seq > self.last_seq + 1:
            what = f"entries {self.last_seq + 1} to {seq - 1} before it are missing"
        else:
            what = f"entry {seq} is where entry {self.last_seq + 1} should be"
        self.add(path, number, what)

    def _check_expected(self, path: Path, number: int, entry: LogEntry) -> None:
        expect = self._expect
        if expect is not None and entry.seq == expect.seq and entry.hash != expect.hash:
            self.add(
                path,
                number,
                f"entry {entry.seq} is another than it was: the log has been written anew",
            )
