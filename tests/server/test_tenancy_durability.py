"""Tenants, what they have used, and the logs of it: after kill -9, damage, and a clean stop."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result

from processes import PyropeProcess, pyrope_process
from pyrope.cli import main
from pyrope.config import Settings
from pyrope.server.lifecycle import PyropeServer
from pyrope.storage.store import StorageError
from pyrope.testing.clock import ManualClock
from servers import free_port, make_settings
from tenancy import (
    PASSWORD,
    add,
    administrator,
    as_map,
    search,
    signed_in,
    tenant,
    tenant_server,
    usage,
)


@contextmanager
def tenant_process(data: Path, *flags: str) -> Iterator[PyropeProcess]:
    """``pyrope serve`` with an administrator; ready when that one is answered."""
    with pyrope_process(data, "--admin-password", PASSWORD, *flags, wait=False) as process:
        deadline = time.monotonic() + 60
        while process.process.poll() is None and time.monotonic() < deadline:
            try:
                with administrator(process) as admin:
                    admin.ping()
                break
            except redis.RedisError:
                time.sleep(0.02)
        else:
            raise AssertionError(f"the server did not get ready:\n{process.output()}")
        yield process


def pyrope(*words: str | Path) -> Result:
    """A command of the command line."""
    ended = CliRunner().invoke(main, list(map(str, words)))
    assert isinstance(ended.exception, SystemExit | None), ended.exception
    return ended


def doctor(data: Path) -> Result:
    return pyrope("doctor", "--data-dir", data)


def refusal(data: Path) -> str:
    """Why a server does not start."""
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "pyrope",
            "serve",
            "--port",
            str(free_port()),
            "--http-port",
            "0",
            "--data-dir",
            str(data),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A data directory of a server that has stopped, with a tenant that has used something."""
    data = tmp_path / "data"
    with tenant_server(data) as server, administrator(server) as admin:
        fill(server, admin)
    return data


def fill(server: Any, admin: redis.Redis) -> None:
    tenant(admin, "CREATE", "acme", "KEY", "k", "BUDGET", "1000000", "PRIORITY", "LOW")
    tenant(admin, "USER", "ADD", "acme", "bob", "KEY", "of bob", "ROLE", "reader")
    tenant(admin, "CREATE", "gone", "KEY", "k")
    tenant(admin, "DROP", "gone")
    with signed_in(server, "acme", "k") as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", 1, "NX")
        add(client, "i", "a", 1.0)
        for _ in range(3):
            search(client, "i", 1.0)


# -- kill -9 --------------------------------------------------------------------------------------


def test_tenants_users_keys_and_limits_survive_kill_9(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with tenant_process(data) as process:
        with administrator(process) as admin:
            fill(process, admin)
            tenant(admin, "SET", "acme", "QPS", "50")
            tenant(admin, "ROTATE", "acme", "KEY", "k2", "OVERLAP", "1000")
            made = tenant(admin, "USER", "ADD", "acme", "eve", "ROLE", "admin")
            tenant(admin, "USER", "ADD", "acme", "out", "KEY", "k", "ROLE", "reader")
            tenant(admin, "USER", "DEL", "acme", "out")
            before = tenant(admin, "GET", "acme")
        process.kill()
        assert PASSWORD not in process.output()
        assert made.decode() not in process.output()
    with tenant_process(data) as process:
        with administrator(process) as admin:
            assert tenant(admin, "GET", "acme") == before
            assert tenant(admin, "LIST") == [b"acme"]
        for login, key in (
            ("acme", "k"),
            ("acme", "k2"),
            ("acme.bob", "of bob"),
            ("acme.eve", made),
        ):
            with signed_in(process, login, key) as client:
                assert client.execute_command("VECTOR.LIST") == [b"i"]
        for login, key in (("acme.out", "k"), ("gone", "k"), ("acme", "of bob")):
            with pytest.raises(redis.AuthenticationError), signed_in(process, login, key) as client:
                client.ping()
        assert process.terminate() == 0
    assert doctor(data).exit_code == 0


class User(threading.Thread):
    """Uses what a tenant may until the connection breaks, and counts what was answered."""

    def __init__(self, process: PyropeProcess, number: int) -> None:
        super().__init__()
        self.client = signed_in(process, "acme", "k")
        self.number = number
        self.answered = 0
        self.times: list[float] = []

    def run(self) -> None:
        try:
            while True:
                add(self.client, "i", f"{self.number}.{self.answered % 50}", 1.0)
                self.answered += 1
                self.times.append(time.monotonic())
        except redis.RedisError:
            self.client.close()


def test_a_crash_loses_what_was_used_in_the_last_interval_at_most_and_nothing_counts_twice(
    tmp_path: Path,
) -> None:
    data, flush_s = tmp_path / "data", 0.2
    flags = ("--tenants-usage-flush-s", str(flush_s), "--tenants-billing-interval-s", "1")
    at_least = at_most = 0
    for round_ in range(2):
        with tenant_process(data, *flags) as process:
            with administrator(process) as admin:
                if not round_:
                    tenant(admin, "CREATE", "acme", "KEY", "k")
                    with signed_in(process, "acme", "k") as client:
                        client.execute_command("VECTOR.CREATE", "i", "DIM", 1)
                    at_least, at_most = 1, 1
                counted = usage(admin, "acme")["requests"]
                if round_:
                    assert at_least <= counted <= at_most
                users = [User(process, number) for number in range(2)]
                for user in users:
                    user.start()
                # Long enough to be written down, and billed, several times.
                while any(not user.times or user.times[-1] - user.times[0] < 1.5 for user in users):
                    time.sleep(0.02)
            killed = time.monotonic()
            process.kill()
            for user in users:
                user.join()
            # A flush that is due may be held up by a disk that is busy.
            safe = killed - flush_s - 0.5
            at_least = counted + sum(sum(at < safe for at in user.times) for user in users)
            at_most = counted + sum(user.answered + 1 for user in users)
    with tenant_process(data, *flags) as process:
        with administrator(process) as admin:
            counted = usage(admin, "acme")["requests"]
            assert at_least <= counted <= at_most
        assert process.terminate() == 0
    examined = doctor(data)
    assert examined.exit_code == 0, examined.stdout
    (row,) = json.loads(pyrope("billing", "--data-dir", data, "--format", "json").stdout)
    assert row["requests"] == counted


def test_what_was_used_before_a_crash_is_billed_although_nothing_is_used_after_it(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    flags = ("--tenants-usage-flush-s", "0.1", "--tenants-billing-interval-s", "86400")
    with tenant_process(data, *flags) as process:
        with administrator(process) as admin:
            fill(process, admin)
            at_least = usage(admin, "acme")["requests"]
            commits = admin.info("persistence")["commits"]
            # Until it has been written down.
            with signed_in(process, "acme", "k") as client:
                while admin.info("persistence")["commits"] == commits:
                    search(client, "i", 1.0)
        process.kill()
    with tenant_process(data, *flags) as process:
        with administrator(process) as admin:
            expected = usage(admin, "acme")["requests"]
            assert expected >= at_least
        assert process.terminate() == 0
    (row,) = json.loads(pyrope("billing", "--data-dir", data, "--format", "json").stdout)
    assert (row["tenant"], row["requests"]) == ("acme", expected)


def test_restarts_count_nothing_twice(tmp_path: Path) -> None:
    data, clock = tmp_path / "data", ManualClock()
    kept: dict[str, Any] | None = None
    for round_ in range(3):
        with tenant_server(data, clock=clock) as server, administrator(server) as admin:
            if kept is not None:
                assert usage(admin, "acme") | {"cache_bytes": 0} == kept | {"cache_bytes": 0}
            else:
                tenant(admin, "CREATE", "acme", "KEY", "k")
            with signed_in(server, "acme", "k") as client:
                client.execute_command("VECTOR.CREATE", "i", "DIM", 1, "NX")
                add(client, "i", f"v{round_}", 1.0)
            kept = usage(admin, "acme")
            assert kept["requests"] == 2 * (round_ + 1)
            # What is kept at most is looked at now and then, and at the end.
            for name in ("bytes", "most_vectors", "most_bytes", "most_cache_bytes"):
                kept.pop(name)
        with tenant_server(data, clock=clock) as server, administrator(server) as admin:
            again = usage(admin, "acme")
            kept |= {name: again[name] for name in again if name not in kept}


def test_a_month_that_passes_while_the_server_is_down_is_over(tmp_path: Path) -> None:
    data = tmp_path / "data"
    clock = ManualClock(1_704_067_190.0)  # 2023-12-31 23:59:50
    with tenant_server(data, clock=clock) as server, administrator(server) as admin:
        fill(server, admin)
        spent = usage(admin, "acme")["used"]
        tenant(admin, "SET", "acme", "BUDGET", spent / 2)
    with (
        tenant_server(data, clock=clock) as server,
        administrator(server) as admin,
        signed_in(server, "acme", "k") as client,
        pytest.raises(redis.ResponseError, match=r"^BUDGET "),
    ):
        search(client, "i", 1.0)
    clock.set_wall(1_704_067_200.0)
    with (
        tenant_server(data, clock=clock) as server,
        administrator(server) as admin,
        signed_in(server, "acme", "k") as client,
    ):
        assert usage(admin, "acme")["used"] == 0
        search(client, "i", 1.0)
        assert usage(admin, "acme", "PERIOD", "2023-12")["used"] == spent
    # Set back by an hour, the month that is over stays over.
    clock.set_wall(1_704_063_600.0)
    with tenant_server(data, clock=clock) as server, administrator(server) as admin:
        assert usage(admin, "acme")["period"] == "2024-01"


# -- damage ---------------------------------------------------------------------------------------


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("*.jsonl")
    return path


def cut_short(folder: Path) -> None:
    """Without its last line, as a copy from before would be."""
    path = only_file(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))


def emptied(folder: Path) -> None:
    only_file(folder).write_bytes(b"")


def removed(folder: Path) -> None:
    only_file(folder).unlink()


def removed_with_its_folder(folder: Path) -> None:
    removed(folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def altered_at_the_end(folder: Path) -> None:
    path = only_file(folder)
    content = path.read_bytes()
    position = content.rindex(b'"acme"') + 2
    path.write_bytes(content[:position] + b"C" + content[position + 1 :])


def garbage_behind_it(folder: Path) -> None:
    path = only_file(folder)
    path.write_bytes(path.read_bytes() + b'{"seq": 1000}\n')


HARM: list[Callable[[Path], None]] = [
    cut_short,
    emptied,
    removed,
    removed_with_its_folder,
    altered_at_the_end,
    garbage_behind_it,
]


@pytest.mark.parametrize("log", ["audit", "billing"])
@pytest.mark.parametrize("harm", HARM, ids=lambda harm: harm.__name__)
def test_a_log_that_is_not_as_it_was_keeps_a_server_from_starting_and_it_says_what_to_do(
    used: Path, log: str, harm: Callable[[Path], None]
) -> None:
    harm(used / log)
    left = (
        {path: path.read_bytes() for path in (used / log).glob("*")}
        if (used / log).exists()
        else {}
    )
    with pytest.raises(StorageError) as refused, tenant_server(used):
        pass
    said = str(refused.value)
    assert str(used / log) in said
    assert "backup" in said
    # Nothing is put right in silence.
    for path, content in left.items():
        if path.suffix == ".jsonl":
            assert path.read_bytes() == content


def test_the_command_line_says_so_in_one_line_and_the_doctor_where(used: Path) -> None:
    assert doctor(used).exit_code == 0
    path = only_file(used / "audit")
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"acme"', b'"Acme"', 1)
    path.write_bytes(b"".join(lines))
    cut_short(used / "billing")
    said = refusal(used)
    assert "cannot start" in said
    assert len(said.splitlines()) == 1
    assert f"{path}, line 2" in said
    assert "pyrope doctor" in said
    examined = doctor(used)
    assert examined.exit_code == 1
    told = examined.stdout.splitlines()
    verdicts = {line[8:]: line[:8].strip() for line in told if not line.startswith(" ")}
    assert verdicts["audit trail"] == "damaged"
    assert verdicts["billing log"] == "damaged"
    assert verdicts["tenants"] == "ok"
    assert any(str(path) in line and "line 2" in line for line in told)


def test_a_torn_line_is_what_a_crash_leaves_and_is_put_right(used: Path) -> None:
    path = only_file(used / "audit")
    path.write_bytes(path.read_bytes() + b'{"seq": 8, "at": 17')
    with tenant_server(used) as server, administrator(server) as admin:
        assert tenant(admin, "LIST") == [b"acme"]
        tenant(admin, "SET", "acme", "QPS", "5")
    assert doctor(used).exit_code == 0


def test_billed_more_than_was_used_is_named(used: Path) -> None:
    # As if the store, and not the log, had been brought back from a backup.
    from pyrope.storage.lmdb_store import LmdbStore  # noqa: PLC0415
    from pyrope.storage.store import DropMeta  # noqa: PLC0415

    store = LmdbStore.open(used)
    for period, _ in store.load_meta("periods"):
        store.commit([DropMeta(f"usage-{period.decode()}", b"acme")])
    store.close()
    examined = doctor(used)
    assert examined.exit_code == 1
    (found,) = (line for line in examined.stdout.splitlines() if "billed" in line)
    assert "tenant 'acme'" in found


@pytest.mark.parametrize("space", ["tenants", "usage", "audit", "billing"])
def test_a_damaged_record_keeps_a_server_from_starting_and_the_doctor_names_it(
    used: Path, space: str
) -> None:
    from pyrope.storage.lmdb_store import LmdbStore  # noqa: PLC0415
    from pyrope.storage.store import PutMeta  # noqa: PLC0415

    store = LmdbStore.open(used)
    if space == "usage":
        ((period, _),) = store.load_meta("periods")
        space = f"usage-{period.decode()}"
    key = b"head" if space in ("audit", "billing") else b"acme"
    store.commit([PutMeta(space, key, b"nonsense")])
    store.close()
    with pytest.raises(StorageError, match="backup"), tenant_server(used):
        pass
    examined = doctor(used)
    assert examined.exit_code == 1
    assert "nonsense" not in examined.stdout
    assert "damaged" in examined.stdout + examined.stderr


# -- the command line -----------------------------------------------------------------------------


def test_the_doctor_looks_at_everything_and_changes_nothing(used: Path) -> None:
    before = {path: path.read_bytes() for path in used.rglob("*") if path.suffix == ".jsonl"}
    names = sorted(path for path in used.rglob("*"))
    examined = doctor(used)
    assert (examined.exit_code, examined.stderr) == (0, "")
    lines = examined.stdout.splitlines()
    assert all(line.startswith("ok      ") for line in lines)
    for what in ("index acme/i, 1 vectors", "tenants", "audit trail", "billing log"):
        assert f"ok      {what}" in lines
    assert any(line.startswith("ok      usage of 20") for line in lines)
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path for path in used.rglob("*")) == names


def test_the_doctor_does_not_look_at_what_is_not_there_or_in_use(tmp_path: Path) -> None:
    nowhere = doctor(tmp_path / "nowhere")
    assert nowhere.exit_code == 1
    assert "is no directory" in nowhere.stderr
    assert not (tmp_path / "nowhere").exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    examined = doctor(empty)
    assert examined.exit_code == 1
    assert list(empty.iterdir()) == []
    with tenant_process(tmp_path / "data"):
        running = doctor(tmp_path / "data")
        assert running.exit_code == 1
        assert len(running.stderr.splitlines()) == 1


def test_billing_prints_the_last_totals_of_each_month_as_csv_and_as_json(tmp_path: Path) -> None:
    data, clock = tmp_path / "data", ManualClock()
    with tenant_server(data, clock=clock) as server, administrator(server) as admin:
        fill(server, admin)
        november = usage(admin, "acme")
        clock.advance(30 * 86_400)
        with signed_in(server, "acme", "k") as client:
            search(client, "i", 1.0)
        december = usage(admin, "acme")
        # While it runs, too: what has been written so far.
        assert pyrope("billing", "--data-dir", data).exit_code == 0
    printed = pyrope("billing", "--data-dir", data)
    assert (printed.exit_code, printed.stderr) == (0, "")
    rows = list(csv.DictReader(io.StringIO(printed.stdout)))
    assert [(row["tenant"], row["period"]) for row in rows] == [
        ("acme", "2023-11"),
        ("acme", "2023-12"),
    ]
    parsed = json.loads(pyrope("billing", "--data-dir", data, "--format", "json").stdout)
    for row, other, told in zip(rows, parsed, (november, december), strict=True):
        for name in ("requests", "hits", "misses", "used", "compute_units", "llm_cost"):
            assert float(row[name]) == other[name] == told[name]
    (only,) = json.loads(
        pyrope("billing", "--data-dir", data, "--format", "json", "--period", "2023-12").stdout
    )
    assert only == parsed[1]
    assert pyrope("billing", "--data-dir", data, "--period", "2020-01").stdout.count("\n") == 1
    for bad in ("2023", "last", "2023-13"):
        refused = pyrope("billing", "--data-dir", data, "--period", bad)
        assert refused.exit_code != 0
        assert bad in refused.stderr


def test_billing_of_a_damaged_or_missing_log_fails(used: Path, tmp_path: Path) -> None:
    missing = pyrope("billing", "--data-dir", tmp_path / "nowhere")
    assert missing.exit_code == 1
    assert "no billing log" in missing.stderr
    altered_at_the_end(used / "billing")
    damaged = pyrope("billing", "--data-dir", used)
    assert (damaged.exit_code, damaged.stdout) == (1, "")


# -- a clean stop ---------------------------------------------------------------------------------


def test_a_stop_leaves_no_task_and_no_lock_and_everything_written_down(tmp_path: Path) -> None:
    data = tmp_path / "data"
    settings: Settings = make_settings(data, admin_password=PASSWORD)

    async def lived() -> None:
        server = PyropeServer(settings, ManualClock())
        await server.start()
        await server.loaded()
        await server.stop()
        await server.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    for _ in range(2):
        asyncio.run(lived())
    with tenant_server(data) as server, administrator(server) as admin:
        fill(server, admin)
        told = usage(admin, "acme")
    assert server.left_tasks == []
    (row,) = json.loads(pyrope("billing", "--data-dir", data, "--format", "json").stdout)
    assert row["requests"] == told["requests"]
    assert not [path for path in data.rglob("*") if path.suffix in (".tmp", ".new")]


def test_a_start_that_fails_leaves_no_task_and_no_lock(used: Path) -> None:
    path = only_file(used / "billing")
    content = path.read_bytes()
    cut_short(used / "billing")
    settings = make_settings(used, admin_password=PASSWORD)

    async def failed() -> None:
        with pytest.raises(StorageError):
            await PyropeServer(settings, ManualClock()).start()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(failed())
    path.write_bytes(content)
    with tenant_server(used) as server, administrator(server) as admin:
        assert as_map(tenant(admin, "GET", "acme"))["priority"] == b"LOW"
