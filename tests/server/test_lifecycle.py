"""Start and stop: nothing is left behind, whatever state a server is stopped in."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import redis

from processes import await_merger, pyrope_process
from pyrope.clock import SystemClock
from pyrope.server.lifecycle import PyropeServer
from servers import encode, make_settings, running_server


def descriptors() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - Path would hold one open itself
        try:
            found.add(f"{name} {Path(f'/proc/self/fd/{name}').readlink()}")
        except FileNotFoundError:
            continue
    return found


async def test_a_stopped_server_leaves_no_task_thread_or_file(tmp_path: Path) -> None:
    before_files, before_threads = descriptors(), set(threading.enumerate())
    for _ in range(2):
        settings = make_settings(tmp_path / "data")
        server = PyropeServer(settings, SystemClock())
        await server.start()
        await server.loaded()
        reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
        writer.write(
            encode("VECTOR.CREATE", "i", "DIM", 2, "NX")
            + encode("VECTOR.ADD", "i", "a", "VALUES", 2, 1, 0)
            + encode("VECTOR.SEARCH", "i", "ELE", "a")
        )
        assert await reader.readuntil(b"*1\r\n$1\r\na\r\n")
        await server.stop()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert set(threading.enumerate()) == before_threads
    assert {f for f in descriptors() if str(tmp_path) in f or "socket" in f} <= before_files


async def test_a_server_can_be_stopped_before_it_has_loaded(tmp_path: Path) -> None:
    with running_server(tmp_path / "data") as running, running.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 4)
    server = PyropeServer(make_settings(tmp_path / "data"), SystemClock())
    await server.start()
    await server.stop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_stopping_answers_what_has_begun(tmp_path: Path) -> None:
    settings = make_settings(tmp_path / "data")
    server = PyropeServer(settings, SystemClock())
    await server.start()
    await server.loaded()
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.port)
    writer.write(encode("VECTOR.CREATE", "i", "DIM", 2))
    await reader.readuntil(b"+OK\r\n")
    writer.write(b"".join(encode("VECTOR.ADD", "i", n, "VALUES", 2, 1, n) for n in range(100)))
    await reader.readexactly(4)  # the first of them is answered
    await server.stop()
    answered = 1 + (await reader.read()).count(b":1\r\n")
    writer.close()
    await writer.wait_closed()
    with running_server(tmp_path / "data") as running, running.client() as client:
        # Everything that was answered is there; and nothing was taken up and not answered.
        assert client.execute_command("VECTOR.CARD", "i") == answered


def test_until_it_has_loaded_a_server_says_so(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running_server(data) as server, server.client() as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 64, "EFCONSTRUCTION", 400)
        vectors = np.random.default_rng(0).standard_normal((6000, 64)).astype("<f4")
        ids = [f"v{n}" for n in range(6000)]
        client.execute_command("VECTOR.MADD", "i", "FP32", vectors.tobytes(), "IDS", 6000, *ids)
    for path in data.glob("indexes/*/graph*"):
        path.unlink()
    loading: list[str] = []
    # Loading takes a tenth of a second, and may be over before anybody asks: then once more.
    for _ in range(20):
        with pyrope_process(data, wait=False) as process:
            while not loading:
                try:
                    with process.client(retry=None) as client:
                        client.execute_command("VECTOR.CARD", "i")
                    break
                except redis.BusyLoadingError as error:
                    loading.append(str(error))
                    with process.client(retry=None) as client:
                        told = client.info("persistence")["loading"]
                        try:
                            client.ping()
                        except redis.BusyLoadingError:
                            assert told == 1
                        else:
                            # It has come to its end meanwhile.
                            assert client.info("persistence")["loading"] == 0
                except redis.ConnectionError:
                    assert process.process.poll() is None
            process.wait_until_ready()
            with process.client() as client:
                assert client.execute_command("VECTOR.CARD", "i") == 6000
                assert client.info("persistence")["loading"] == 0
        if loading:
            break
    assert loading


@pytest.mark.parametrize("word", ["", "NOSAVE"])
def test_shutdown_stops_the_process_and_saves_the_graph_unless_told_not_to(
    tmp_path: Path, word: str
) -> None:
    data = tmp_path / "data"
    with pyrope_process(data) as process:
        with process.client() as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", 2)
            vectors = np.random.default_rng(1).standard_normal((500, 2)).astype("<f4").tobytes()
            client.execute_command("VECTOR.MADD", "i", "FP32", vectors, "IDS", 500, *range(500))
            await_merger(client)
            with pytest.raises(redis.ConnectionError):
                client.execute_command("SHUTDOWN", *([word] if word else []))
        assert process.process.wait(30) == 0
    assert bool(list(data.glob("indexes/*/graph*"))) == (word == "")
    with pyrope_process(data) as process, process.client() as client:
        assert client.execute_command("VECTOR.CARD", "i") == 500
