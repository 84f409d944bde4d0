"""Opening the LMDB environment, and finding out that its file has lost its end.

LMDB maps its file and reads a page where it is said to be; where the file ends before that page,
the kernel kills the process (SIGBUS), and a page of zeros in its place ends it as well (an
assertion of LMDB's). So a file that is shorter than LMDB's own account of it is looked at before
LMDB reads anything else. It need not be damaged: pages that a transaction took at the end of the
file and gave back before it ended are counted, and were never written.

Looked at means that the trees are walked here, in the file format of LMDB 0.9 (mdb.c, `MDB_meta`,
`MDB_db`, `MDB_page`, `MDB_node`; 64 bits, little-endian), which takes seconds for millions of
records. It happens once: such a file gets the size that LMDB counts with.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lmdb

from pyrope.storage.store import StorageError

_MAX_DATABASES = 8

# Page: number, padding, flags, end of the pointers to nodes, begin of the nodes.
_PAGE = struct.Struct("<Q4H")
_BRANCH, _LEAF = 0x01, 0x02
# Node: 48 bits of a page's number in a branch; 32 bits of a size, and flags, in a leaf; length of
# the key, which comes next.
_NODE = struct.Struct("<4H")
_LARGE_VALUE, _DATABASE = 0x01, 0x02
_NUMBER = struct.Struct("<Q")
# Behind a meta page's header: a magic number and the file's version; two databases of 48 bytes, of
# which the last 8 are the root, and the first 4 of the first are the size of a page; the number of
# the last page; the number of the transaction.
_MAGIC = struct.Struct("<2I")
_MAGIC_NUMBERS = (0xBEEFC0DE, 1)
_DATABASES_AT = _PAGE.size + 24
_ROOT_AT, _DATABASE_BYTES = 40, 48
_LAST_PAGE_AT = _DATABASES_AT + 2 * _DATABASE_BYTES
_TRANSACTION_AT = _LAST_PAGE_AT + 8
_PAGE_SIZE = struct.Struct("<I")
_SMALLEST_PAGE, _LARGEST_PAGE = 256, 65536
_NO_PAGE = 2**64 - 1


@dataclass(frozen=True, slots=True)
class MetaPages:
    """The first two pages of the file: which transaction was committed last, and what it wrote.

    Attributes:
        content: both pages as they are.
        page_size: bytes of a page.
        transaction: number of the last transaction that was committed.
        last_page: number of the last page that it counts.
    """

    content: bytes
    page_size: int
    transaction: int
    last_page: int

    @property
    def nbytes(self) -> int:
        """Length of the file that holds every page that is counted."""
        return (self.last_page + 1) * self.page_size


def read_meta_pages(path: Path) -> MetaPages:
    """The first two pages of an environment's file. No commit may be under way.

    Raises:
        StorageError: it is no file of LMDB's.
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        head = os.pread(file.fileno(), _DATABASES_AT + _PAGE_SIZE.size, 0)
        page_size = 0
        if len(head) == _DATABASES_AT + _PAGE_SIZE.size:
            (page_size,) = _PAGE_SIZE.unpack_from(head, _DATABASES_AT)
        if not _SMALLEST_PAGE <= page_size <= _LARGEST_PAGE:
            raise StorageError(f"{path} is no file of LMDB's")
        content = os.pread(file.fileno(), 2 * page_size, 0)
    pages = content[:page_size], content[page_size:]
    if len(pages[1]) < page_size or any(
        _MAGIC.unpack_from(page, _PAGE.size) != _MAGIC_NUMBERS for page in pages
    ):
        raise StorageError(f"{path} is no file of LMDB's")
    meta = max(pages, key=lambda page: _number_at(page, _TRANSACTION_AT))
    return MetaPages(
        content, page_size, _number_at(meta, _TRANSACTION_AT), _number_at(meta, _LAST_PAGE_AT)
    )


def check_end(path: Path, metas: MetaPages) -> None:
    """Look whether a file that nobody writes to holds every page in use.

    Raises:
        StorageError: it has lost its end.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size < metas.nbytes and not _has_every_page(path, metas.page_size, size // metas.page_size):
        raise lost_end(path, size, metas.nbytes)


def lost_end(path: Path, size: int, needed: int) -> StorageError:
    """What to raise where a file of `size` bytes should have had `needed`."""
    return StorageError(
        f"{path} has lost its end (it has {size} bytes, and had {needed}): bring the data "
        "directory back from a backup"
    )


def open_environment(path: Path, map_bytes: int) -> lmdb.Environment:
    """Open the environment in a file, which is made (mode 0600) where it does not exist.

    Args:
        path: of the file.
        map_bytes: initial size of the map.

    Raises:
        StorageError: the file's end is missing.
        lmdb.Error, OSError: it cannot be opened.
    """
    # meminit: pages need no zeroing before they are filled, as no one reads their slack.
    env = lmdb.Environment(
        str(path),
        map_size=map_bytes,
        subdir=False,
        mode=0o600,
        max_dbs=_MAX_DATABASES,
        meminit=False,
    )
    try:
        size = path.stat().st_size
        page_size = env.stat()["psize"]
        needed = (env.info()["last_pgno"] + 1) * page_size
        if size < needed:
            if not _has_every_page(path, page_size, size // page_size):
                raise lost_end(path, size, needed)
            os.truncate(path, needed)
    except BaseException:
        env.close()
        raise
    return env


def _has_every_page(path: Path, page_size: int, pages: int) -> bool:
    """Whether every page in use is one of the first `pages`."""
    with path.open("rb", buffering=0) as file:
        metas = [os.pread(file.fileno(), page_size, number * page_size) for number in (0, 1)]
        meta = max(metas, key=lambda page: _number_at(page, _TRANSACTION_AT))
        # One database is the list of unused pages, the other holds the named ones.
        first_root = _DATABASES_AT + _ROOT_AT
        numbers = [_number_at(meta, first_root + at) for at in (0, _DATABASE_BYTES)]
        visited = 0
        while numbers:
            number = numbers.pop()
            if number == _NO_PAGE:
                continue  # of an empty database
            visited += 1
            if number >= pages or visited > pages:  # a tree in a circle is no tree
                return False
            page = os.pread(file.fileno(), page_size, number * page_size)
            try:
                below, last = _pages_named_by(page)
            except struct.error:
                return False
            if last >= pages:
                return False
            numbers += below
    return True


def _pages_named_by(page: bytes) -> tuple[list[int], int]:
    """Pages of trees that a page names, and the last of the pages of its large values."""
    _, _, flags, end, _ = _PAGE.unpack_from(page)
    found = []
    last = 0
    pointers: Iterator[tuple[int]] = struct.iter_unpack("<H", page[_PAGE.size : end])
    for (pointer,) in pointers:
        low, high, node_flags, key_length = _NODE.unpack_from(page, pointer)
        data = pointer + _NODE.size + key_length
        if flags & _BRANCH:
            found.append(low | high << 16 | node_flags << 32)
        elif flags & _LEAF and node_flags & _LARGE_VALUE:
            nbytes = _PAGE.size + (low | high << 16)
            last = max(last, _number_at(page, data) + (nbytes - 1) // len(page))
        elif flags & _LEAF and node_flags & _DATABASE:
            found.append(_number_at(page, data + _ROOT_AT))
    return found, last


def _number_at(page: bytes, position: int) -> int:
    number: int = _NUMBER.unpack_from(page, position)[0]
    return number
