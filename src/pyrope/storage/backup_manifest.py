"""The manifest of a backup: which files it has, and how to tell that they are as they were.

A backup is a folder with the file ``MANIFEST`` and the folder ``data``, which is laid out as a data
directory is. The manifest is text. Its first line is ``pyrope-backup``, the version of this layout
and the XXH3-128 of that version and all other lines, which are one JSON object. Every later version
keeps the first two words where they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from xxhash import xxh3_128_hexdigest

from pyrope.storage.lmdb_store import FORMAT, OLDER_FORMATS
from pyrope.storage.snapshot import RECORDS_NAME
from pyrope.storage.store import StorageError

BACKUP_FORMAT = 1
"""Version of the layout of a backup."""

MANIFEST_NAME = "MANIFEST"
DATA_NAME = "data"

_WORD = "pyrope-backup"
_LARGEST_BYTES = 256 * 2**20
"""100,000 indexes have 300,000 files, at 150 bytes each."""


@dataclass(frozen=True, slots=True)
class BackupFile:
    """One file.

    Attributes:
        path: below ``data``, with slashes.
        size: in bytes.
        xxh3_128: of its content, in hexadecimal.
    """

    path: str
    size: int
    xxh3_128: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds.

    Attributes:
        pyrope: version of the Pyrope that made it.
        data_format: of the data directory; see docs/storage.md.
        created_at: Unix time in seconds of the moment that it is a copy of.
        indexes: how many there are.
        folders: below ``data``, those that are there even where they are empty.
        files: all of them.
    """

    pyrope: str
    data_format: int
    created_at: float
    indexes: int
    folders: Sequence[str]
    files: Sequence[BackupFile]

    @property
    def nbytes(self) -> int:
        """Of all files together."""
        return sum(file.size for file in self.files)


def encode_manifest(manifest: Manifest) -> bytes:
    """The content of the file."""
    body = json.dumps(asdict(manifest), indent=1).encode() + b"\n"
    return f"{_WORD} {BACKUP_FORMAT} {_digest(BACKUP_FORMAT, body)}\n".encode() + body


def load_manifest(backup: Path) -> Manifest:
    """The manifest of a backup that this Pyrope can restore.

    Raises:
        StorageError: it is no backup, is damaged, or a newer Pyrope made it.
        OSError: it cannot be read.
    """
    path = backup / MANIFEST_NAME
    if not path.is_file():
        raise StorageError(f"{backup} is no backup of Pyrope: it has no file {MANIFEST_NAME}")
    with path.open("rb") as file:
        content = file.read(_LARGEST_BYTES + 1)
    line, _, body = content.partition(b"\n")
    words = line.split(b" ")
    if words[0] != _WORD.encode() or len(words) < 2 or not words[1].isdigit():
        raise StorageError(f"{path} is no manifest of a backup of Pyrope")
    version = int(words[1])
    if version > BACKUP_FORMAT:
        raise StorageError(
            f"{backup} is a backup of format {version} and this Pyrope knows formats up to "
            f"{BACKUP_FORMAT}: restore it with the newer Pyrope that made it"
        )
    if len(content) > _LARGEST_BYTES:
        raise StorageError(f"{path} is larger than any manifest")
    if len(words) != 3 or words[2] != _digest(version, body).encode():
        raise StorageError(f"{path} is damaged: it does not have its checksum")
    manifest = _decode(path, body)
    if manifest.data_format > FORMAT:
        raise StorageError(
            f"the data in {backup} have format {manifest.data_format} and this Pyrope knows "
            f"formats up to {FORMAT}: restore it with the newer Pyrope that made it"
        )
    return manifest


def check_data_format(data_format: int, source: Path) -> None:
    """Raises StorageError for data that this Pyrope does not know how to copy."""
    if data_format != FORMAT and data_format not in OLDER_FORMATS:
        raise StorageError(
            f"the data directory {source} has format {data_format} and this Pyrope knows format "
            f"{FORMAT}: back it up with the newer Pyrope that wrote it"
        )


def _decode(path: Path, body: bytes) -> Manifest:
    try:
        fields: dict[str, Any] = json.loads(body)
        files = [BackupFile(**file) for file in fields.pop("files")]
        manifest = Manifest(files=files, **fields)
    except (ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{path} is no manifest of a backup of Pyrope: {error}") from error
    for name in (*manifest.folders, *(file.path for file in files)):
        parts = PurePosixPath(name).parts
        if name.startswith("/") or not parts or ".." in parts or "\0" in name:
            raise StorageError(f"{path} names a file outside of the backup: {name!r}")
    if len({file.path for file in files}) < len(files):
        raise StorageError(f"{path} names a file twice")
    if RECORDS_NAME not in {file.path for file in files}:
        raise StorageError(f"{path} names no {RECORDS_NAME}: there is nothing to restore")
    return manifest


def _digest(version: int, body: bytes) -> str:
    return xxh3_128_hexdigest(b"%d\n" % version + body)
