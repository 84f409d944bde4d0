"""An append-only log of text lines, each of which holds the hash of all that were before it.

For what people have to be able to trust and to read without Pyrope: the audit trail and billing.
What a line is, is in `chained_entry`; how files are called and read, in `chained_files`; the
verifier of a whole log in `chained_verify`.

- `append` is one write and one sync for all its lines, which never are in two files. A file that
  would become larger than the limit is left as it is, and the chain goes on in another.
- What an append that failed has written is cut off again. If the disk refuses that too, the next
  append begins with it; a process that ends before it may leave lines that were refused.
- A process that is killed in the middle of an append may leave some of its lines, and a part of
  one more. That part is cut off when the log is opened, and an entry says so. Whole lines stay:
  who appends again what was not acknowledged looks at what came after the last head first.
- Everything else that does not fit is an error, and nothing is changed then.

A hash is no signature: who may write the files can write another log that is right in itself. It
is not the one whose head someone has remembered elsewhere, and that is what `expect` is for.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Protocol, Self

from pyrope.errors import MisconfError
from pyrope.storage import chained_files
from pyrope.storage.chained_entry import (
    EMPTY,
    Head,
    LogEntry,
    encode_entry,
    timestamp,
)
from pyrope.storage.chained_files import (
    LogFile,
    file_path,
    log_files,
    read_range,
    read_tail,
)
from pyrope.storage.data_dir import make_directory
from pyrope.storage.store import StorageError

MAX_APPEND_BYTES = 64 * 2**20
"""Of the lines of one append: they are in memory at once, and in one file."""

TORN_LINE_EVENT = "log.torn_line"
"""`event` of the entry which says that a part of a line was cut off; its other fields are `file`,
`bytes` and `blake2b`, the hash (256 bits) of what was cut off."""


_PAGE = 1_000
"""Entries that are looked at together when a log is compared with an older head."""


class EntryLog(Protocol):
    """What a service needs of a log. Calls may come from any thread and may wait for the disk."""

    @property
    def head(self) -> Head:
        """Where the log ends. Does not wait."""
        ...

    def append(self, payloads: Sequence[Mapping[str, object]], at: float) -> Head:
        """Make entries durable, all of them or none; the head after them.

        Args:
            payloads: fields of one entry each, with any names but `seq`, `at`, `prev` and `hash`;
                plain JSON values. Not to be changed meanwhile.
            at: wall time of all of them, Unix seconds.

        Raises:
            ValueError: a payload is not JSON or too large, there are too many, or `at` is no time.
            MisconfError: the disk refused, or someone else has changed the log.
            RuntimeError: the log is closed.
        """
        ...

    def read(self, after_seq: int, limit: int) -> list[LogEntry]:
        """Up to `limit` entries after number `after_seq`, oldest first.

        Raises:
            ValueError: limit is not from 1 to `MAX_PAGE`, or after_seq is negative.
            StorageError: one of the entries is not as it was written, or cannot be read.
        """
        ...

    def read_newest(self, before_seq: int | None, limit: int) -> list[LogEntry]:
        """Up to `limit` entries before number `before_seq` (None: the last), newest first.

        Raises:
            As `read`.
        """
        ...

    def close(self) -> None:
        """Idempotent. Nothing can be appended afterwards."""
        ...


class ChainedLog:
    """An `EntryLog` in a folder of its own. `open` makes one.

    Attributes:
        torn_bytes: what was cut off when it was opened; 0: nothing.
    """

    def __init__(self, folder: Path, rotate_bytes: int, lock: int) -> None:
        self._folder = folder
        self._rotate_bytes = rotate_bytes
        # Of the folder; holds its lock.
        self._folder_descriptor = lock
        self._descriptor = -1
        self._path = folder
        self._size = 0
        # Whether the file may have more than `_size` bytes, which do not count.
        self._is_longer = False
        # Whether the file's name is known to be durable.
        self._is_named = False
        self._note: dict[str, object] | None = None
        self._head = EMPTY
        self._mutex = Lock()
        self.torn_bytes = 0

    @classmethod
    def open(
        cls, folder: Path, *, rotate_bytes: int, at: float, expect: Head | None = None
    ) -> Self:
        """Open the log in a folder, which is made (mode 0700) where it does not exist.

        Reads the end of the last file only, if that is where `expect` is; otherwise all from
        `expect` on.

        Args:
            rotate_bytes: size of a file that is not appended to any more if that would exceed it.
            at: wall time of an entry about a part of a line that is cut off, Unix seconds.
            expect: a head that `append` once answered: the log has to contain it. None: nothing
                is known of the log, and an end that is missing is not noticed.

        Raises:
            StorageError: the log is damaged, or does not contain what is expected; another server
                has it open; or the folder cannot be used.
        """
        try:
            make_directory(folder)
            lock = _lock(folder)
            log = cls(folder, rotate_bytes, lock)
            try:
                log._find_end(expect)
                if log._note is not None:
                    # A disk that is full is no reason not to start; the next append tries again.
                    with suppress(MisconfError):
                        log._append([], timestamp(at))
            except BaseException:
                log.close()
                raise
        except OSError as error:
            raise StorageError(f"the log in {folder} cannot be used: {error}") from error
        return log

    @property
    def head(self) -> Head:
        return self._head

    def append(self, payloads: Sequence[Mapping[str, object]], at: float) -> Head:
        moment = timestamp(at)
        with self._mutex:
            return self._append(payloads, moment)

    # Lines behind the head may be of an append that is under way, and cut off again.

    def read(self, after_seq: int, limit: int) -> list[LogEntry]:
        return chained_files.read(self._folder, after_seq, limit, last_seq=self._head.seq)

    def read_newest(self, before_seq: int | None, limit: int) -> list[LogEntry]:
        return chained_files.read_newest(self._folder, before_seq, limit, last_seq=self._head.seq)

    def close(self) -> None:
        with self._mutex:
            for descriptor in (self._descriptor, self._folder_descriptor):
                if descriptor >= 0:
                    os.close(descriptor)
            self._descriptor = self._folder_descriptor = -1

    # -- opening ----------------------------------------------------------------------------------

    def _find_end(self, expect: Head | None) -> None:
        files = log_files(self._folder)
        if files:
            torn = self._open_last(files)
        self._check_expected(expect)
        if files and torn:
            self._is_longer = True
            self.torn_bytes = len(torn)
            self._note = {
                "event": TORN_LINE_EVENT,
                "file": self._path.name,
                "bytes": len(torn),
                "blake2b": blake2b(torn, digest_size=32).hexdigest(),
            }

    def _open_last(self, files: list[LogFile]) -> bytes:
        """Take up the last file; what is behind its last whole line."""
        last = files[-1]
        tail = read_tail(last)
        if tail.head is not None:
            self._head = tail.head
        elif len(files) > 1:
            # It was begun, and nothing came into it.
            before = read_tail(files[-2])
            if before.head is None or before.torn_bytes:
                raise files[-2].error(1, "the file has no end, and another follows it")
            self._head = before.head
        if tail.head is None and last.first != self._head.seq + 1:
            raise last.error(
                1, f"entries {self._head.seq + 1} to {last.first - 1} before it are missing"
            )
        self._path = last.path
        self._descriptor = os.open(last.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        self._size = tail.size
        return os.pread(self._descriptor, tail.torn_bytes, tail.size)

    def _check_expected(self, expect: Head | None) -> None:
        if expect is None or expect == self._head or expect.seq == 0:
            return
        what_to_do = f"bring {self._folder} back from a backup"
        if expect.seq > self._head.seq:
            raise StorageError(
                f"the log in {self._folder} ends with entry {self._head.seq}, and had entry "
                f"{expect.seq}, so its end is missing: {what_to_do}"
            )
        before: Head | None = None
        while before is None or before.seq < self._head.seq:
            start = expect.seq if before is None else before.seq + 1
            entries = read_range(self._folder, start, start + _PAGE, before)
            if not entries or entries[0].seq != start:
                raise StorageError(
                    f"the log in {self._folder} has no entry {start} any more: {what_to_do}"
                )
            if start == expect.seq and entries[0].hash != expect.hash:
                raise StorageError(
                    f"the log in {self._folder} has another entry {expect.seq} than it had, so it "
                    f"has been written anew: {what_to_do}"
                )
            before = Head(entries[-1].seq, entries[-1].hash)

    # -- appending --------------------------------------------------------------------------------

    def _append(self, payloads: Sequence[Mapping[str, object]], at: str) -> Head:
        if self._folder_descriptor < 0:
            raise RuntimeError(f"the log in {self._folder} is closed")
        notes = () if self._note is None else (self._note,)
        data, head = encode_entries((*notes, *payloads), at, self._head)
        if not data:
            return head
        try:
            self._prepare(len(data))
            self._write(data)
        except OSError as error:
            # What cannot be cut off now is cut off by the next append.
            with suppress(OSError):
                self._cut()
            raise MisconfError(
                f"the log in {self._folder} cannot be written, nothing of this was kept: {error}"
            ) from error
        self._size += len(data)
        self._head = head
        self._note = None
        return head

    def _prepare(self, nbytes: int) -> None:
        """Have a file that so many bytes can go to, and nothing in it that does not count."""
        if self._descriptor >= 0:
            self._check_unchanged()
            self._cut()
        if self._descriptor < 0 or (self._size and self._size + nbytes > self._rotate_bytes):
            self._begin_file()
        if not self._is_named:
            os.fsync(self._folder_descriptor)
            self._is_named = True

    def _check_unchanged(self) -> None:
        mine = os.fstat(self._descriptor)
        try:
            there = self._path.stat()
        except FileNotFoundError:
            there = None
        is_mine = there is not None and (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
        is_as_left = mine.st_size == self._size or (self._is_longer and mine.st_size > self._size)
        if not (is_mine and is_as_left):
            raise MisconfError(
                f"{self._path} was changed by someone other than this server, which writes to it "
                'no more: put it back as it was, or see what "pyrope doctor" says of it'
            )

    def _begin_file(self) -> None:
        path = file_path(self._folder, self._head.seq + 1)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor
        self._path = path
        self._size = 0
        self._is_named = False

    def _write(self, data: bytes) -> None:
        self._is_longer = True
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]
        os.fdatasync(self._descriptor)
        self._is_longer = False

    def _cut(self) -> None:
        """Cut off what an append that failed, or was killed, has left in the file."""
        if self._is_longer:
            os.ftruncate(self._descriptor, self._size)
            os.fdatasync(self._descriptor)
            self._is_longer = False


def encode_entries(
    payloads: Sequence[Mapping[str, object]], at: str, before: Head
) -> tuple[bytes, Head]:
    """The lines of an append behind `before`, and the head after them.

    Raises:
        ValueError: as `EntryLog.append` tells.
    """
    lines = []
    nbytes = 0
    head = before
    for payload in payloads:
        line, head = encode_entry(payload, at, head)
        lines.append(line)
        nbytes += len(line)
        if nbytes > MAX_APPEND_BYTES:
            raise ValueError(f"one append has at most {MAX_APPEND_BYTES} bytes")
    return b"".join(lines), head


def _lock(folder: Path) -> int:
    """Take the folder's lock; it ends when the answered descriptor is closed.

    Raises:
        StorageError: another server holds it.
        OSError: the folder cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StorageError(
            f"the log in {folder} is in use by another server: stop it, or give this one another "
            "folder"
        ) from None
    return descriptor
