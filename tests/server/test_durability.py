"""What survives: kill -9, restarts, damaged and missing graphs, a full disk."""

from __future__ import annotations

import resource
import signal
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
import redis
from numpy.typing import NDArray

from processes import PyropeProcess, await_merger, pyrope_process
from pyrope.testing.clock import ManualClock
from pyrope.types import IndexType
from servers import running_server

DIM = 16


def vector(number: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).standard_normal(DIM).astype("<f4")


class Writer(threading.Thread):
    """Writes to its own ids until the connection breaks, and remembers what was acknowledged."""

    def __init__(self, process: PyropeProcess, number: int, enough: threading.Event) -> None:
        super().__init__()
        self.client = process.client(retry=None)
        self.number = number
        self.enough = enough
        self.acknowledged: dict[bytes, int | None] = {}
        self.in_doubt: bytes | None = None

    def run(self) -> None:
        step = 0
        try:
            while True:
                step += 1
                id_ = b"w%d-%d" % (self.number, step % 40)
                self.in_doubt = id_
                if step % 7 == 0:
                    self.client.execute_command("VECTOR.DEL", "i", id_)
                    self.acknowledged[id_] = None
                else:
                    value = self.number * 1_000_000 + step
                    self.client.execute_command(
                        "VECTOR.ADD", "i", id_, "FP32", vector(value).tobytes(),
                        "SETATTR", f'{{"v": {value}}}',
                    )  # fmt: skip
                    self.acknowledged[id_] = value
                self.in_doubt = None
                if step == 60:
                    self.enough.set()
        except redis.RedisError:
            pass


@pytest.mark.parametrize("type_", list(IndexType))
def test_every_acknowledged_write_survives_kill_9(tmp_path: Path, type_: str) -> None:
    data = tmp_path / "data"
    expected: dict[bytes, int | None] = {}
    in_doubt: set[bytes] = set()
    for round_ in range(2):
        # Merging goes on all the time, so that the kill falls into it.
        with pyrope_process(data, "--engine-head-vectors", "0") as process:
            with process.client() as client:
                client.execute_command("VECTOR.CREATE", "i", "DIM", DIM, "TYPE", type_, "NX")
                if round_:
                    check(client, expected, in_doubt)
            events = [threading.Event() for _ in range(4)]
            writers = [Writer(process, round_ * 4 + n, event) for n, event in enumerate(events)]
            for writer in writers:
                writer.start()
            for event in events:
                assert event.wait(60)
            process.kill()
            for writer in writers:
                writer.join()
                writer.client.close()
                expected |= writer.acknowledged
                if writer.in_doubt is not None:
                    in_doubt.add(writer.in_doubt)
    with pyrope_process(data) as process, process.client() as client:
        check(client, expected, in_doubt)
        assert process.terminate() == 0


def check(client: redis.Redis, expected: dict[bytes, int | None], in_doubt: set[bytes]) -> None:
    for id_, value in expected.items():
        if id_ in in_doubt:
            continue
        got = client.execute_command("VECTOR.GET", "i", id_, "WITHVECTOR", "FP32")
        if value is None:
            assert got is None
            continue
        sent = vector(value).tobytes()
        assert got == [b"id", id_, b"attr", b'{"v": %d}' % value, b"vector", sent]
        found = client.execute_command("VECTOR.SEARCH", "i", "FP32", sent, "COUNT", 1)
        assert found == [id_]


def fill(client: redis.Redis, count: int = 400) -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", DIM)
    data = np.stack([vector(number) for number in range(count)])
    ids = [f"v{number}" for number in range(count)]
    client.execute_command("VECTOR.MADD", "i", "FP32", data.tobytes(), "IDS", count, *ids)
    await_merger(client)


def assert_whole(client: redis.Redis, count: int = 400) -> None:
    assert client.execute_command("VECTOR.CARD", "i") == count
    for number in range(0, count, 37):
        found = client.execute_command(
            "VECTOR.SEARCH", "i", "FP32", vector(number).tobytes(), "COUNT", 1
        )
        assert found == [b"v%d" % number]


def graphs(data: Path) -> list[Path]:
    return sorted(data.glob("indexes/*/graph*"))


def test_a_clean_restart_loads_the_saved_graph(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pyrope_process(data) as process:
        with process.client() as client:
            fill(client)
        assert process.terminate() == 0
    assert graphs(data)
    with pyrope_process(data) as process:
        with process.client() as client:
            assert_whole(client)
        assert process.terminate() == 0
        assert "built anew" not in process.output()


@pytest.mark.parametrize("harm", ["missing", "damaged", "cut short"])
def test_a_graph_that_cannot_be_used_is_built_anew_and_the_log_says_so(
    tmp_path: Path, harm: str
) -> None:
    data = tmp_path / "data"
    with pyrope_process(data) as process:
        with process.client() as client:
            fill(client)
        process.terminate()
    (native,) = [path for path in graphs(data) if path.suffix == ".bin"]
    if harm == "missing":
        for path in graphs(data):
            path.unlink()
    elif harm == "damaged":
        content = bytearray(native.read_bytes())
        content[len(content) // 2] ^= 0xFF
        native.write_bytes(content)
    else:
        native.write_bytes(native.read_bytes()[:-100])
    with pyrope_process(data) as process:
        with process.client() as client:
            assert_whole(client)
        process.terminate()
        assert "graph is built anew" in process.output()


def test_a_stale_graph_is_caught_up_with_what_was_written_after_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pyrope_process(data) as process, process.client() as client:
        fill(client)
        client.save()
        client.execute_command("VECTOR.DEL", "i", "v0", "v1")
        client.execute_command("VECTOR.ADD", "i", "v2", "FP32", vector(5000).tobytes())
        client.execute_command("VECTOR.ADD", "i", "new", "FP32", vector(5001).tobytes())
        process.kill()
    with pyrope_process(data) as process, process.client() as client:
        assert client.execute_command("VECTOR.CARD", "i") == 399
        for number, expected in ((5000, b"v2"), (5001, b"new"), (37, b"v37")):
            found = client.execute_command(
                "VECTOR.SEARCH", "i", "FP32", vector(number).tobytes(), "COUNT", 1
            )
            assert found == [expected]
        everything = client.execute_command(
            "VECTOR.SEARCH", "i", "FP32", vector(0).tobytes(), "COUNT", 1000
        )
        assert len(everything) == 399
        assert not {b"v0", b"v1"} & set(everything)
        assert "built anew" not in process.output()


def test_bgsave_saves_while_the_server_serves(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_server(data) as server, server.client() as client:
        fill(client)
        assert not graphs(data)
        assert client.bgsave()
        while client.info("persistence")["graph_changes_since_last_save"]:
            assert_whole(client)
        assert graphs(data)
        assert client.info("persistence")["graph_last_save_status"] == "ok"


def test_a_graph_is_saved_by_itself_after_enough_changes(tmp_path: Path) -> None:
    storage = {"graph_save_interval_s": 0.05, "graph_save_min_changes": 300}
    with running_server(tmp_path / "data", storage=storage) as server, server.client() as client:
        fill(client)
        while client.info("persistence")["graph_changes_since_last_save"]:
            client.ping()
        assert graphs(tmp_path / "data")


def test_dropping_an_index_gives_its_space_back(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def used() -> int:
        told = subprocess.run(
            ["du", "-s", "--block-size=1", data], capture_output=True, check=False
        )
        return int(told.stdout.split()[0])  # files may go while du looks

    with running_server(data) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 1024, "TYPE", "FLAT")
        empty = used()
        vectors = np.ones((2000, 1024), "<f4")
        ids = [f"v{number}" for number in range(2000)]
        client.execute_command("VECTOR.MADD", "i", "FP32", vectors.tobytes(), "IDS", 2000, *ids)
        full = used()
        assert full - empty >= vectors.nbytes
        client.execute_command("VECTOR.DROP", "i")
        while used() > empty + 1_000_000:
            client.ping()
    with running_server(data) as server, server.client() as client:
        assert client.execute_command("VECTOR.LIST") == []


def fill_the_disk(client: redis.Redis) -> int:
    """Add vectors until one is refused. Returns how many were not."""
    for number in range(10_000):
        row = np.full(1024, number + 1, "<f4").tobytes()
        try:
            client.execute_command("VECTOR.ADD", "i", f"v{number}", "FP32", row)
        except redis.ResponseError as error:
            if str(error).startswith("MISCONF"):
                return number
            raise
    raise AssertionError("the disk did not fill up")


def test_a_full_disk_refuses_writes_and_nothing_is_lost(tmp_path: Path) -> None:
    data = tmp_path / "data"

    def limit_files() -> None:
        # Writes past this fail with EFBIG, as they would with ENOSPC on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))

    with pyrope_process(data, prepare=limit_files) as process, process.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 1024, "TYPE", "FLAT")
        written = fill_the_disk(client)
        assert 50 < written < 1000
        for refused in (
            ("VECTOR.ADD", "i", "more", "FP32", bytes(4096)),
            ("VECTOR.ADD", "i", "v1", "FP32", bytes(4096)),
        ):
            with pytest.raises(redis.ResponseError, match=r"^MISCONF"):
                client.execute_command(*refused)
        # Reads go on, and see what they saw before.
        assert client.execute_command("VECTOR.CARD", "i") == written
        got = client.execute_command("VECTOR.GET", "i", "v1", "WITHVECTOR", "FP32")
        assert got[-1] == np.full(1024, 2, "<f4").tobytes()
        resource.prlimit(
            process.process.pid,
            resource.RLIMIT_FSIZE,
            (resource.RLIM_INFINITY, resource.RLIM_INFINITY),
        )
        # It recovers by itself as soon as there is room.
        assert client.execute_command("VECTOR.ADD", "i", "more", "FP32", bytes(4096)) == 1
        process.kill()
    with pyrope_process(data) as process, process.client() as client:
        assert client.execute_command("VECTOR.CARD", "i") == written + 1


def test_in_memory_nothing_touches_the_disk(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pyrope_process(data, "--in-memory") as process:
        with process.client() as client:
            fill(client)
            client.save()
            assert_whole(client)
        assert process.terminate() == 0
    assert not data.exists()


def test_expired_vectors_do_not_come_back_after_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()
    for type_ in ("FLAT", "HNSW"):
        data = tmp_path / type_
        with running_server(data, clock=clock) as server, server.client() as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", DIM, "TYPE", type_)
            for name, extra in (("short", ("EX", 50)), ("long", ("EX", 500)), ("ever", ())):
                client.execute_command("VECTOR.ADD", "i", name, "FP32", vector(1).tobytes(), *extra)
        clock.advance(100)
        with running_server(data, clock=clock) as server, server.client() as client:
            assert sorted(client.execute_command("VECTOR.SCAN", "i", 0)[1]) == [b"ever", b"long"]
            found = client.execute_command("VECTOR.SEARCH", "i", "FP32", vector(1).tobytes())
            assert sorted(found) == [b"ever", b"long"]
            assert client.execute_command("VECTOR.GET", "i", "long")[-1] == 400
            client.execute_command("VECTOR.ADD", "i", "short", "FP32", vector(2).tobytes())
        with running_server(data, clock=clock) as server, server.client() as client:
            assert client.execute_command("VECTOR.CARD", "i") == 3


def test_two_servers_cannot_share_a_data_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pyrope_process(data):
        second = PyropeProcess(data, wait=False)
        assert second.process.wait(30) == 1
        output = second.output()
        assert "Traceback" not in output
        assert str(data) in output
