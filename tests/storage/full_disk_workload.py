"""Commits against a limit on file sizes, which answers as a full disk does; see test_disk_full.py.

``python -m storage.full_disk_workload DIRECTORY rows|records|catalogue|metas`` exits with 0 when
all is well.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from pyrope.errors import MisconfError
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.store import Change, PutIndex, PutMeta, WriteBatch
from storage.store_samples import puts, record, rows, stored_records

DIM = 1024
ATTRIBUTES = b"{" + b" " * 30_000 + b"}"


def rows_grow(uid: int, number: int) -> list[Change]:
    return [puts(uid, range(100 * number, 100 * number + 100), dim=DIM)]


def records_grow(uid: int, number: int) -> list[Change]:
    # The row goes where the vector file has room already: LMDB alone meets the limit.
    big = record(number, attributes=ATTRIBUTES)
    return [WriteBatch(uid, 1, [big], rows([number], DIM))]


def catalogue_grows(uid: int, number: int) -> list[Change]:
    return [PutIndex(uid + number, ATTRIBUTES)]


def metas_grow(uid: int, number: int) -> list[Change]:
    return [PutMeta("space", b"%d" % number, ATTRIBUTES)]


KINDS: dict[str, Callable[[int, int], list[Change]]] = {
    "rows": rows_grow,
    "records": records_grow,
    "catalogue": catalogue_grows,
    "metas": metas_grow,
}


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def main(directory: str, kind: str) -> None:
    changes = KINDS[kind]
    store = LmdbStore.open(Path(directory))
    uid = store.next_uid()
    store.commit([PutIndex(uid, b"")])
    store.vectors(uid, DIM).ensure(200)
    store.commit(changes(uid, 1))
    number = 1
    with largest_file(1_500_000):
        with suppress(MisconfError):
            while number < 100:
                store.commit(changes(uid, number + 1))
                number += 1
        assert 1 < number < 100, number
        indexes = store.indexes()
        held = stored_records(store, uid)
        metas = store.load_meta("space")
        sequence = store.load(uid).sequence
        for _ in range(3):
            with pytest.raises(MisconfError, match="cannot be written, nothing of this write"):
                store.commit([PutIndex(uid, b"changed"), *changes(uid, number + 1)])
        # Reads go on, and nothing of what was refused is there.
        assert store.indexes() == indexes
        assert store.load_meta("space") == metas
        assert stored_records(store, uid) == held
        assert store.load(uid).sequence == sequence
        view = store.vectors(uid, DIM).view()
        for slot in held:
            assert np.array_equal(view[slot], rows([slot], DIM)[0])
    # Space returns, and the same store accepts what it refused.
    store.commit(changes(uid, number + 1))
    store.close()
    print(uid, number + 1)  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
