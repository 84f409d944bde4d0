"""What an index says of its memory, beside what the system counts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from benchmarks.harness.memory import library_buffers, resident

from processes import PyropeProcess, pyrope_process
from servers import running_server

COUNT, DIM = 40_000, 128
BOUND = 0.15
# After a build, the server gives back what malloc keeps, once it has been quiet for a while.
PATIENCE_SECONDS = 20.0


def clustered(count: int, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((500, DIM), dtype=np.float32)
    rows = centres[rng.integers(500, size=count)]
    return rows + 0.6 * rng.standard_normal((count, DIM), dtype=np.float32)


def describe(client: redis.Redis, name: str) -> dict[str, Any]:
    told = client.execute_command("VECTOR.INFO", name)
    return {key.decode(): value for key, value in zip(told[::2], told[1::2], strict=True)}


def fill(client: redis.Redis, name: str, index_type: str, count: int) -> None:
    graph = ["EFCONSTRUCTION", 40] if index_type.startswith("HNSW") else []
    client.execute_command("VECTOR.CREATE", name, "DIM", DIM, "TYPE", index_type, *graph)
    rows = clustered(count, 1)
    for start in range(0, count, 1000):
        some = rows[start : start + 1000]
        ids = [f"{name}:{start + i}" for i in range(len(some))]
        blob = some.astype("<f4").tobytes()
        client.execute_command("VECTOR.MADD", name, "FP32", blob, "IDS", len(ids), *ids)
    client.execute_command("VECTOR.BUILD", name)


def settled(server: PyropeProcess, client: redis.Redis, name: str) -> int:
    """Anonymous memory once nothing is merged and no more is given back, in bytes."""
    pid, last, since = server.process.pid, 0, time.monotonic()
    deadline = since + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        held = resident(pid).anonymous - library_buffers(pid)
        if describe(client, name)["merging"] or abs(held - last) > 100_000:
            last, since = held, time.monotonic()
        elif time.monotonic() - since > 1:
            break
        time.sleep(0.05)
    return resident(pid).anonymous - library_buffers(pid)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux' /proc")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("index_type", ["FLAT", "HNSW", "HNSW_SQ8", "IVF_FLAT", "IVF_PQ"])
def test_memory_bytes_is_what_an_index_takes_to_within_15_percent(
    index_type: str, tmp_path: Path
) -> None:
    with pyrope_process(tmp_path / "data") as server, server.client() as client:
        # What a process takes once, for whichever index comes first, is no index's.
        fill(client, "first", index_type, COUNT // 2)
        before = settled(server, client, "first")
        fill(client, "i", index_type, COUNT)
        taken = settled(server, client, "i") - before
        assert describe(client, "i")["memory_bytes"] == pytest.approx(taken, rel=BOUND)


def test_rows_count_as_memory_only_where_no_file_backs_them(tmp_path: Path) -> None:
    rows = np.ones((1000, 256), "<f4")
    ids = [f"v{number}" for number in range(1000)]
    said = []
    for data_dir in (tmp_path / "data", None):
        with running_server(data_dir) as server, server.client() as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", 256)
            client.execute_command("VECTOR.MADD", "i", "FP32", rows.tobytes(), "IDS", 1000, *ids)
            said.append(describe(client, "i")["memory_bytes"])
    assert said[0] < rows.nbytes
    assert said[0] + rows.nbytes <= said[1] < said[0] + 1.3 * rows.nbytes
