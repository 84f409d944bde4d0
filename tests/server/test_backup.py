"""Backups of a running server: under writes from several clients, cut off, refused, cancelled."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from numpy.typing import NDArray

from processes import PyropeProcess, await_merger, pyrope_process
from pyrope.commands.backup import to
from pyrope.errors import NoPermError
from pyrope.storage.backup_files import Work
from pyrope.storage.backup_restore import restore_backup
from servers import RunningServer, running_server

DIM = 512
IDS = 400


def vector(value: int) -> NDArray[np.float32]:
    return np.random.default_rng(value).standard_normal(DIM).astype("<f4")


def back_up(client: redis.Redis, path: Path) -> dict[str, Any]:
    reply = client.execute_command("VECTOR.BACKUP", "TO", str(path))
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


def status(client: redis.Redis) -> dict[str, Any]:
    reply = client.execute_command("VECTOR.BACKUP", "STATUS")
    return {name.decode(): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


class Writer(threading.Thread):
    """Writes to its own ids, one command after the other, until it is told to stop.

    Attributes:
        sent: id and value (None: deleted) of each command, in order.
        acknowledged: how many of them have been answered.
    """

    def __init__(self, process: PyropeProcess, number: int) -> None:
        super().__init__()
        self.client = process.client(retry=None)
        self.number = number
        self.sent: list[tuple[bytes, int | None]] = []
        self.acknowledged = 0
        self.enough = threading.Event()

    def run(self) -> None:
        rng = np.random.default_rng(self.number)
        try:
            while not self.enough.is_set():
                step = len(self.sent) + 1
                id_ = b"w%d-%d" % (self.number, rng.integers(IDS))
                if step % 5 == 0:
                    self.sent.append((id_, None))
                    self.client.execute_command("VECTOR.DEL", "i", id_)
                else:
                    value = self.number * 1_000_000 + step
                    self.sent.append((id_, value))
                    self.client.execute_command(
                        "VECTOR.ADD", "i", id_, "FP32", vector(value).tobytes(),
                        "SETATTR", f'{{"v": {value}}}',
                    )  # fmt: skip
                self.acknowledged = step
        except redis.RedisError:
            pass
        finally:
            self.client.close()

    def state_after(self, steps: int) -> dict[bytes, int]:
        """Ids and values that there are after so many commands."""
        latest = dict(self.sent[:steps])
        return {id_: value for id_, value in latest.items() if value is not None}


def start_writers(process: PyropeProcess, count: int = 4) -> list[Writer]:
    writers = [Writer(process, number) for number in range(1, count + 1)]
    for writer in writers:
        writer.start()
    while any(writer.acknowledged < 300 for writer in writers):
        assert all(writer.is_alive() for writer in writers)
        time.sleep(0.01)
    return writers


def stop_writers(writers: list[Writer]) -> None:
    for writer in writers:
        writer.enough.set()
    for writer in writers:
        writer.join()


def stored(process: PyropeProcess, number: int) -> dict[bytes, int]:
    """Ids of a writer and their values, each checked against its vector and by a search."""
    found: dict[bytes, int] = {}
    with process.client() as client:
        for at in range(IDS):
            id_ = b"w%d-%d" % (number, at)
            got = client.execute_command("VECTOR.GET", "i", id_, "WITHVECTOR", "FP32")
            if got is None:
                continue
            value = int(got[3].split(b":")[1].rstrip(b"}"))
            assert got[5] == vector(value).tobytes()
            if at % 20 == 0:
                assert client.execute_command(
                    "VECTOR.SEARCH", "i", "FP32", got[5], "COUNT", 1, "TRUTH"
                ) == [id_]
            found[id_] = value
    return found


def test_a_backup_under_writes_is_the_state_between_two_acknowledged_writes(
    tmp_path: Path,
) -> None:
    with pyrope_process(tmp_path / "data", "--engine-head-vectors", "0") as process:
        with process.client() as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", DIM)
            writers = start_writers(process)
            backups = []
            for number in range(2):
                before = [writer.acknowledged for writer in writers]
                path = tmp_path / f"backup-{number}"
                told = back_up(client, path)
                assert told["indexes"] == 1
                after = [len(writer.sent) for writer in writers]
                assert sum(after) > sum(before)  # nobody had to wait for its end
                backups.append((path, before, after))
            stop_writers(writers)
        assert process.terminate() == 0
    for path, before, after in backups:
        data = tmp_path / f"restored-{path.name}"
        restore_backup(path, data, Work())
        with pyrope_process(data) as process:
            for writer, least, most in zip(writers, before, after, strict=True):
                found = stored(process, writer.number)
                # Not some of each: what it had sent up to one moment, and nothing behind it.
                assert any(found == writer.state_after(n) for n in range(least, most + 1))
            with process.client() as client:  # and it goes on from there
                client.execute_command("VECTOR.ADD", "i", "new", "FP32", vector(1).tobytes())
                assert client.execute_command("VECTOR.EXISTS", "i", "new")
            assert process.terminate() == 0


def test_a_server_killed_in_a_backup_loses_nothing_and_leaves_no_backup(tmp_path: Path) -> None:
    data, path = tmp_path / "data", tmp_path / "backup"
    with pyrope_process(data) as process:
        with process.client() as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", DIM, "TYPE", "FLAT")
            many(client, 20_000)
        writers = start_writers(process, 2)
        asking = threading.Thread(target=ask_and_be_cut_off, args=(process, path))
        asking.start()
        await_files(path.with_name("backup.partial"))
        process.process.send_signal(signal.SIGKILL)
        process.process.wait(30)
        asking.join()
        stop_writers(writers)
    assert not path.exists()
    with pyrope_process(data) as process:
        for writer in writers:
            found = stored(process, writer.number)
            allowed = range(writer.acknowledged, len(writer.sent) + 1)
            assert any(found == writer.state_after(steps) for steps in allowed)
        with process.client() as client:
            assert client.execute_command("VECTOR.CARD", "i") > 20_000
            with pytest.raises(redis.ResponseError, match=r"backup\.partial is there"):
                back_up(client, path)
            back_up(client, tmp_path / "another")
        assert process.terminate() == 0


def many(client: redis.Redis, count: int) -> None:
    rng = np.random.default_rng(1)
    for start in range(0, count, 2000):
        rows = rng.standard_normal((2000, DIM), np.float32)
        ids = [f"m{start + number}" for number in range(2000)]
        client.execute_command("VECTOR.MADD", "i", "FP32", rows.tobytes(), "IDS", 2000, *ids)


def ask_and_be_cut_off(process: PyropeProcess, path: Path) -> None:
    with process.client(retry=None) as client, pytest.raises(redis.RedisError):
        back_up(client, path)


def await_files(folder: Path) -> None:
    """Return when a backup is under way, with vectors in it."""
    deadline = time.monotonic() + 30
    while not list(folder.glob("data/indexes/*/vectors.f32")):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_server_that_is_stopped_gives_a_backup_up_or_finishes_it(tmp_path: Path) -> None:
    data, path = tmp_path / "data", tmp_path / "backup"
    with pyrope_process(data, "--shutdown-timeout-s", "0", "--engine-head-vectors", "0") as process:
        with process.client() as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", DIM, "TYPE", "FLAT")
            many(client, 20_000)
        asking = threading.Thread(target=ask, args=(process, path))
        asking.start()
        await_files(path.with_name("backup.partial"))
        assert process.terminate() == 0
        asking.join()
    assert not path.with_name("backup.partial").exists()
    if path.exists():
        restore_backup(path, tmp_path / "restored", Work())


def ask(process: PyropeProcess, path: Path) -> None:
    with process.client(retry=None) as client, contextlib.suppress(redis.RedisError):
        back_up(client, path)


# -- one server, in this process -----------------------------------------------------------------


@pytest.fixture
def data_server(tmp_path: Path) -> Iterator[RunningServer]:
    with running_server(tmp_path / "data") as server:
        yield server


def fill(client: redis.Redis, type_: str = "FLAT") -> None:
    client.execute_command("VECTOR.CREATE", "i", "DIM", DIM, "TYPE", type_)
    many(client, 2000)
    await_merger(client)


def test_who_asks_is_told_what_was_written(data_server: RunningServer, tmp_path: Path) -> None:
    with data_server.client() as client:
        fill(client, "HNSW")
        client.save()
        assert status(client)["last_at"] == b"0"
        told = back_up(client, tmp_path / "backup")
        files = [path for path in (tmp_path / "backup" / "data").rglob("*") if path.is_file()]
        assert told["path"] == str(tmp_path / "backup").encode()
        assert told["files"] == len(files)
        assert told["bytes"] == sum(path.stat().st_size for path in files)
        assert {path.parent.name for path in files} >= {"audit", "1"}
        assert any(path.suffix == ".bin" for path in files)
        now = status(client)
        assert (now["running"], now["last_error"]) == (0, b"")
        assert float(now["last_at"]) > 0


def test_the_audit_trail_tells_of_it_in_the_backup_too(
    data_server: RunningServer, tmp_path: Path
) -> None:
    with data_server.client() as client:
        back_up(client, tmp_path / "backup")
        with pytest.raises(redis.ResponseError, match="exists already"):
            back_up(client, tmp_path / "backup")
    acts, in_backup = [
        b"".join(path.read_bytes() for path in sorted((folder / "audit").iterdir()))
        for folder in (tmp_path / "data", tmp_path / "backup" / "data")
    ]
    assert in_backup.count(b'"act":"server.backup"') == 1
    assert acts.count(b'"act":"server.backup"') == 2
    assert acts.count(b'"act":"server.backup.failed"') == 1


def test_a_restored_backup_passes_the_doctor(data_server: RunningServer, tmp_path: Path) -> None:
    from pyrope.service.doctor import examine  # noqa: PLC0415

    with data_server.client() as client:
        fill(client)
        client.execute_command("VECTOR.ALIAS", "SET", "i", "an alias", "something else")
        back_up(client, tmp_path / "backup")
    restore_backup(tmp_path / "backup", tmp_path / "restored", Work())
    looked = dict(examine(tmp_path / "restored"))
    assert {problem for problems in looked.values() for problem in problems} == set()
    assert len(looked) > 3


def test_only_one_is_made_at_a_time_and_it_can_be_cancelled(
    data_server: RunningServer, tmp_path: Path
) -> None:
    errors: list[str] = []

    def ask_for_long() -> None:
        with data_server.client() as client:
            try:
                back_up(client, tmp_path / "first")
            except redis.ResponseError as error:
                errors.append(str(error))

    with data_server.client() as client:
        fill(client)
        # The store's thread is held up, so that the first one cannot go on.
        release = threading.Event()
        storage = data_server.pyrope.server.service._storage
        data_server.loop.call_soon_threadsafe(lambda: storage.run(release.wait))
        asking = threading.Thread(target=ask_for_long)
        asking.start()
        while not status(client)["running"]:
            time.sleep(0.005)
        with pytest.raises(redis.ResponseError, match=r"^BUSY|first is under way"):
            back_up(client, tmp_path / "second")
        assert client.execute_command("VECTOR.BACKUP", "CANCEL") == 1
        release.set()
        asking.join()
        assert client.execute_command("VECTOR.BACKUP", "CANCEL") == 0
        assert errors == ["the backup failed: it was given up on request"]
        assert status(client)["last_error"] == b"it was given up on request"
        assert not list(tmp_path.glob("first*")) + list(tmp_path.glob("second*"))
        back_up(client, tmp_path / "third")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("relative", "absolute"),
        ("/a\0b", "absolute"),
        ("/" + "x" * 5000, "at most 4096 bytes"),
        ("/nowhere/at/all", "make it first"),
        ("/proc/backup", "the backup failed"),
        ("/", "absolute"),
    ],
)
def test_a_path_that_will_not_do_is_refused(
    data_server: RunningServer, path: str, message: str
) -> None:
    with data_server.client() as client, pytest.raises(redis.ResponseError, match=message):
        client.execute_command("VECTOR.BACKUP", "TO", path)


def test_the_data_directory_itself_is_no_place(data_server: RunningServer, tmp_path: Path) -> None:
    with (
        data_server.client() as client,
        pytest.raises(redis.ResponseError, match="in the data directory"),
    ):
        client.execute_command("VECTOR.BACKUP", "TO", f"{tmp_path}/x/../data/backup")


def test_a_server_in_memory_has_nothing_to_back_up(client: redis.Redis, tmp_path: Path) -> None:
    with pytest.raises(redis.ResponseError, match="nothing on disk"):
        back_up(client, tmp_path / "backup")


def test_clients_from_elsewhere_are_refused(server: RunningServer, tmp_path: Path) -> None:
    class Elsewhere:
        is_local = False

    class AskedFromElsewhere:
        client = Elsewhere()

    elsewhere: Any = AskedFromElsewhere()
    with pytest.raises(NoPermError, match="by the server where it runs"):
        _ = to(elsewhere, [b"", b"", b"/tmp/x"])
