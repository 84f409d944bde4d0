"""A saved graph: the engine's native file, and a sidecar that says what it is and if it is whole.

The native file cannot carry a trailer (hnswlib refuses a file that is longer than it expects), so
the sidecar `<path>.meta` names the data file, `<path>-<digest>.bin`, and renaming the sidecar into
place is the atomic point of a save. Until then the old pair is untouched; after it the old data
file is removed. Order: data written, digested, synced; sidecar written, synced, renamed; directory
synced; leftovers removed.

The sidecar is two lines: XXH3-128 of the second line in hex, and the second line, JSON.

A graph is never the only copy of anything: whatever is wrong with it, the caller rebuilds it from
the records and the vector file. So reading answers reasons, not exceptions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from xxhash import xxh3_128, xxh3_128_hexdigest

from pyrope.storage.data_dir import sync_directory

_FORMAT = 2
_BLOCK_BYTES = 4 * 2**20
_LARGEST_SIDECAR_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class GraphMeta:
    """What a graph is a graph of.

    Attributes:
        uid: its index.
        sequence: write sequence of the index at which the graph was true.
        slot_count: slots that the graph knows.
        type: name of the engine that wrote it.
        dim: dimension of its vectors.
        metric: name of the metric.
        m: links of a node on the upper levels.
        ef_construction: candidates considered while a node was linked.
    """

    uid: int
    sequence: int
    slot_count: int
    type: str
    dim: int
    metric: str
    m: int
    ef_construction: int


@dataclass(frozen=True, slots=True)
class SavedGraph:
    """A graph on disk.

    Attributes:
        meta: what was saved.
        file: the engine's native file.
        size: its length in bytes.
        digest: its XXH3-128, in hex.
    """

    meta: GraphMeta
    file: Path
    size: int
    digest: str


def save_graph(path: Path, write: Callable[[str], None], meta: GraphMeta) -> SavedGraph:
    """Write a graph and make it the one that `load_graph_meta` finds at `path`.

    Args:
        path: from `Store.graph_path`; its directory exists.
        write: writes the native file at the path it is given. It must raise when the file is not
            complete: a stream that swallows a full disk would get its stump a valid digest.
        meta: of the graph as it is while `write` runs.

    Raises:
        OSError: from `write`, or the disk is full or unwritable. The old graph is still there (or
            the new one, where only the last sync of the directory failed).
    """
    unfinished = Path(f"{path}.tmp")
    unfinished_sidecar = Path(f"{path}.meta.tmp")
    try:
        unfinished.unlink(missing_ok=True)
        write(str(unfinished))
        size, digest = _digest(unfinished)
        data = Path(f"{path}-{digest}.bin")
        _sync_file(unfinished)
        unfinished.chmod(0o600)
        unfinished_sidecar.write_bytes(_encode_sidecar(meta, data.name, size, digest))
        unfinished_sidecar.chmod(0o600)
        _sync_file(unfinished_sidecar)
        unfinished.rename(data)
        unfinished_sidecar.rename(f"{path}.meta")
        sync_directory(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)
        unfinished_sidecar.unlink(missing_ok=True)
    for other in path.parent.glob(f"{path.name}-*.bin"):
        if other != data:
            other.unlink()
    return SavedGraph(meta, data, size, digest)


def load_graph_meta(path: Path) -> SavedGraph | str:
    """What the graph at `path` claims to be (its data are not read), or why there is none.

    Reasons: "missing", "unreadable: ...", "damaged: ...", "of another format".
    """
    try:
        content = read_sidecar(path)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error}"
    return decode_sidecar(path, content)


def read_sidecar(path: Path) -> bytes:
    """What describes the graph at `path`. Raises OSError."""
    with sidecar_path(path).open("rb") as file:
        return file.read(_LARGEST_SIDECAR_BYTES)


def sidecar_path(path: Path) -> Path:
    """Where that is."""
    return Path(f"{path}.meta")


def decode_sidecar(path: Path, content: bytes) -> SavedGraph | str:
    """What `load_graph_meta` answers where this describes the graph at `path`."""
    digest, _, body = content.partition(b"\n")
    if xxh3_128_hexdigest(body).encode() != digest:
        return "damaged: its description does not have its checksum"
    fields = json.loads(body)
    if fields.pop("format") != _FORMAT:
        return "of another format"
    file_name, size, data_digest = fields.pop("file"), fields.pop("size"), fields.pop("digest")
    return SavedGraph(GraphMeta(**fields), path.parent / file_name, size, data_digest)


def verify_graph(saved: SavedGraph, expected: GraphMeta) -> str | None:
    """Why this graph cannot be used for an index; None where it can. Reads the whole file.

    Args:
        saved: from `load_graph_meta`.
        expected: the index as it is. Its sequence and slot_count may be ahead of the graph's (the
            caller then brings the graph up to date, or rebuilds it), never behind.

    Reasons: "of another index", "built with other parameters", "ahead of the store: ...",
    "missing", "unreadable: ...", "damaged: ...".
    """
    return _mismatch(saved.meta, expected) or _damage(saved)


def _mismatch(meta: GraphMeta, expected: GraphMeta) -> str | None:
    if meta.uid != expected.uid:
        return "of another index"
    if (meta.dim, meta.metric, meta.m, meta.ef_construction) != (
        expected.dim,
        expected.metric,
        expected.m,
        expected.ef_construction,
    ):
        return "built with other parameters"
    if meta.sequence > expected.sequence:
        return f"ahead of the store: at {meta.sequence}, the store at {expected.sequence}"
    return None


def _damage(saved: SavedGraph) -> str | None:
    try:
        size, digest = _digest(saved.file)
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error}"
    if size != saved.size:
        return f"damaged: {size} bytes long, not {saved.size}"
    if digest != saved.digest:
        return "damaged: its data do not have their checksum"
    return None


def _encode_sidecar(meta: GraphMeta, file_name: str, size: int, digest: str) -> bytes:
    fields = {"format": _FORMAT, "file": file_name, "size": size, "digest": digest}
    body = json.dumps(fields | asdict(meta)).encode()
    return xxh3_128_hexdigest(body).encode() + b"\n" + body


def _digest(path: Path) -> tuple[int, str]:
    """Length and XXH3-128 of a file; the GIL is free during reads and hashing."""
    state = xxh3_128()
    size = 0
    block = bytearray(_BLOCK_BYTES)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            state.update(memoryview(block)[:count])
            size += count
    return size, state.hexdigest()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
