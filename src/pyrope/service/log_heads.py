"""Where chained logs end, as the store remembers: what was cut off later does not contain it."""

from __future__ import annotations

import json
from collections.abc import Iterable

from pyrope.storage.chained_entry import EMPTY, Head
from pyrope.storage.store import PutMeta, StorageError

_KEY = b"head"


def put_head(space: str, head: Head) -> PutMeta:
    """The change that remembers a head.

    Args:
        space: of the log, among the meta records.
    """
    return PutMeta(space, _KEY, json.dumps(list(head)).encode())


def stored_head(space: str, records: Iterable[tuple[bytes, bytes]]) -> Head:
    """The head that is remembered; `EMPTY` where none is.

    Args:
        records: of the space.

    Raises:
        StorageError: it is not what Pyrope has written.
    """
    for key, value in records:
        if key == _KEY:
            try:
                seq, digest = json.loads(value)
                return Head(int(seq), str(digest))
            except (ValueError, TypeError) as error:
                raise StorageError(
                    f"the store's record of the {space} log is damaged: bring the data directory "
                    "back from a backup"
                ) from error
    return EMPTY
