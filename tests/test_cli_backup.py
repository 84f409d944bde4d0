"""``pyrope backup`` and ``pyrope restore``, as they are run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from processes import PyropeProcess, pyrope_process
from pyrope.cli import main

DIM = 8


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PYROPE_")]:
        monkeypatch.delenv(name)


def invoke(*args: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], env=env)


def fill(process: PyropeProcess, count: int = 10, **options: str) -> None:
    with process.client(**options) as client:
        client.execute_command("VECTOR.CREATE", "i", "DIM", DIM, "NX")
        for number in range(count):
            client.execute_command("VECTOR.ADD", "i", number, "VALUES", DIM, *range(DIM))


def count_in(data: Path) -> int:
    with pyrope_process(data) as process, process.client() as client:
        count: int = client.execute_command("VECTOR.CARD", "i")
        assert process.terminate() == 0
    return count


def test_a_running_server_is_backed_up_and_restored(tmp_path: Path) -> None:
    data, backup, again = tmp_path / "data", tmp_path / "backup", tmp_path / "again"
    with pyrope_process(data) as process:
        fill(process)
        done = invoke("backup", backup, "--data-dir", data, "--port", process.port)
        assert done.exit_code == 0, done.output
        assert done.stdout.startswith(f"{backup}: 1 indexes, ")
        assert done.stdout.endswith("(by the running server)\n")
        assert done.stderr == "Backing up\n"
        fill(process, 20)
    done = invoke("restore", backup, "--data-dir", again)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{again}: 1 indexes, ")
    assert count_in(again) == 10


def test_a_stopped_server_is_backed_up_and_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, again = tmp_path / "data", tmp_path / "again"
    with pyrope_process(data) as process:
        fill(process)
        process.kill()
    monkeypatch.chdir(tmp_path)
    done = invoke("backup", "backup", "--data-dir", data)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(f"{tmp_path / 'backup'}: 1 indexes, ")
    assert done.stdout.endswith("(no server was running)\n")
    assert invoke("restore", "backup", "--data-dir", again).exit_code == 0
    assert count_in(again) == 10
    assert invoke("doctor", "--data-dir", again).exit_code == 0


def test_the_password_and_the_unix_socket_come_from_the_settings(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    file = tmp_path / "pyrope.toml"
    file.write_text(
        f'admin_password = "secret"\nunixsocket = "{tmp_path}/s"\ndata_dir = "{data}"\n'
    )
    with pyrope_process(data, "--config", str(file), wait=False) as process:
        while invoke("ping", "--ready", "--config", file).exit_code:
            assert process.process.poll() is None
            time.sleep(0.05)
        fill(process, password="secret")
        wrong = invoke("backup", backup, "--config", file, env={"PYROPE_ADMIN_PASSWORD": "no"})
        assert wrong.exit_code == 1
        assert wrong.stderr.startswith("pyrope: WRONGPASS ")
        assert not list(tmp_path.glob("backup*"))
        assert invoke("backup", backup, "--config", file).exit_code == 0
    assert (backup / "MANIFEST").exists()


def test_the_server_has_to_be_the_one_that_has_the_data(tmp_path: Path) -> None:
    with (
        pyrope_process(tmp_path / "data") as one,
        pyrope_process(tmp_path / "other") as other,
    ):
        told = invoke("backup", tmp_path / "b", "--data-dir", tmp_path / "data", "--port",
                      other.port)  # fmt: skip
        assert told.exit_code == 1
        assert f"process {one.process.pid}" in told.stderr
        assert "is not the one that has the data directory" in told.stderr
        with socket.create_server(("127.0.0.1", 0)) as probe:
            nobody = probe.getsockname()[1]
        told = invoke("backup", tmp_path / "b", "--data-dir", tmp_path / "data", "--port", nobody)
        assert told.exit_code == 1
        assert f"no server answers at 127.0.0.1 port {nobody}" in told.stderr
        assert not list(tmp_path.glob("b*"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["backup", "{}/b", "--data-dir", "{}/nowhere"], "is no directory"),
        (["backup", "{}/b", "--data-dir", "{}/empty"], "holds no data of Pyrope"),
        (["backup", "{}/b", "--in-memory"], "nothing on disk to back up"),
        (["restore", "{}/empty", "--data-dir", "{}/new"], "is no backup of Pyrope"),
        (["restore", "{}/nowhere", "--data-dir", "{}/new"], "is no backup of Pyrope"),
    ],
)
def test_what_cannot_be_done_exits_with_1_and_a_sentence(
    tmp_path: Path, args: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.iterdir())
    told = invoke(*(arg.format(tmp_path) for arg in args))
    assert told.exit_code == 1
    assert message in told.stderr
    assert told.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("command", ["backup", "restore"])
def test_wrong_usage_and_wrong_settings_exit_with_2(command: str, tmp_path: Path) -> None:
    assert invoke(command).exit_code == 2
    told = invoke(command, tmp_path / "b", "--port", "x")
    assert told.exit_code == 2
    assert told.stderr.startswith("pyrope: port: ")
    assert "DIR" in invoke(command, "--help").output


def test_a_restore_refuses_a_directory_with_data_and_a_damaged_backup(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with pyrope_process(data) as process:
        fill(process)
        assert process.terminate() == 0
    assert invoke("backup", backup, "--data-dir", data).exit_code == 0
    told = invoke("restore", backup, "--data-dir", data)
    assert told.exit_code == 1
    assert "is not empty" in told.stderr
    with (backup / "data" / "records.mdb").open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    told = invoke("restore", backup, "--data-dir", tmp_path / "new")
    assert told.exit_code == 1
    assert "records.mdb is damaged: it does not have its checksum" in told.stderr
    assert not (tmp_path / "new").exists()
    assert count_in(data) == 10


def test_ctrl_c_ends_a_backup_and_nothing_is_left(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with pyrope_process(data) as process:
        with process.client() as client:
            client.execute_command("VECTOR.CREATE", "i", "DIM", 1024, "TYPE", "FLAT")
            for start in range(0, 40_000, 4000):
                client.execute_command(
                    "VECTOR.MADD", "i", "FP32", os.urandom(2).ljust(4, b"\0") * 1024 * 4000,
                    "IDS", 4000, *range(start, start + 4000),
                )  # fmt: skip
        asking = subprocess.Popen(
            [
                sys.executable, "-m", "pyrope", "backup", str(tmp_path / "backup"),
                "--data-dir", str(data), "--port", str(process.port),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while not (tmp_path / "backup.partial" / "data" / "indexes").exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        asking.send_signal(signal.SIGINT)
        _, errors = asking.communicate(timeout=30)
        if asking.returncode:  # it was not over by then
            assert "Aborted" in errors
            assert not list(tmp_path.glob("backup*"))
        with process.client() as client:
            assert client.execute_command("VECTOR.CARD", "i") == 40_000
