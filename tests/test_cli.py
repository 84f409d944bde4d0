"""The command line: flags, `check`, exit codes, and what is written where."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner, Result

from pyrope import __version__
from pyrope.cli import main, run
from pyrope.clock import Clock
from pyrope.config import Settings, every_setting
from pyrope.errors import MisconfError
from pyrope.storage.store import StorageError
from pyrope.testing.clock import ManualClock

READY_TIMEOUT_S = 30


@pytest.fixture(autouse=True)
def _no_settings_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PYROPE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []  # configuring closes the handlers it finds, and these are pytest's
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def invoke(*args: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, args, env=env)


# -- help, version, check -----------------------------------------------------------------------


def test_the_version_is_printed_by_flag_and_by_command() -> None:
    assert invoke("--version").output == invoke("version").output == f"pyrope {__version__}\n"


@pytest.mark.parametrize("command", ["serve", "check"])
def test_help_names_every_setting_and_its_default(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    for setting in every_setting():
        assert f"{setting.flag} " in result.output
    assert "[default: 7379; 0 to 65535]" in " ".join(result.output.split())


def test_check_prints_a_file_with_what_is_in_force_and_its_source(tmp_path: Path) -> None:
    file = tmp_path / "pyrope.toml"
    file.write_text("port = 1\n[limits]\ndim = 1\n")
    result = invoke(
        "check", "--config", str(file), "--port", "3", "--in-memory", "--no-protected-mode",
        env={"PYROPE_LIMITS__DIM": "2"},
    )  # fmt: skip
    assert result.exit_code == 0
    content = tomllib.loads(result.output)
    assert (content["port"], content["limits"]["dim"]) == (3, 2)
    assert (content["in_memory"], content["protected_mode"]) == (True, False)
    assert "port = 3  # flag --port\n" in result.output
    assert "dim = 2  # environment PYROPE_LIMITS__DIM\n" in result.output
    assert "threads = 0  # default\n" in result.output


def test_the_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "pyrope.toml"
    file.write_text("port = 1\n")
    result = invoke("check", env={"PYROPE_CONFIG": str(file)})
    assert f"port = 1  # file {file}\n" in result.output


def test_check_masks_secrets() -> None:
    result = invoke("check", env={"PYROPE_ADMIN_PASSWORD": "hunter2"})
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    assert 'admin_password = "********"  # environment PYROPE_ADMIN_PASSWORD\n' in result.output


@pytest.mark.parametrize("command", ["serve", "check"])
def test_bad_settings_exit_with_2_and_a_line_for_each(command: str) -> None:
    result = invoke(command, "--port", "x", "--limits-dim", "0")
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("pyrope: port: ")
    assert lines[1].startswith("pyrope: limits.dim: ")


def test_an_unknown_flag_exits_with_2() -> None:
    assert invoke("serve", "--prot", "1").exit_code == 2


def test_the_module_can_be_run() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyrope", "version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"pyrope {__version__}\n"


# -- run: what becomes of a server that ends ----------------------------------------------------


class FakeServer:
    """A server that announces itself, then returns or raises."""

    def __init__(self, before: Exception | None = None, after: Exception | None = None) -> None:
        self.before, self.after = before, after
        self.loop: asyncio.AbstractEventLoop | None = None

    async def __call__(
        self, settings: Settings, clock: Clock, *, ready: Callable[[str], None]
    ) -> None:
        self.loop = asyncio.get_running_loop()
        if self.before:
            raise self.before
        ready("127.0.0.1:7379")
        if self.after:
            raise self.after


@pytest.mark.usefixtures("_restore_logging")
def test_a_server_that_drains_exits_with_0_after_one_ready_line(
    capfd: pytest.CaptureFixture[str], clock: ManualClock
) -> None:
    server = FakeServer()
    assert run(Settings(), clock, server) == 0
    out, err = capfd.readouterr()
    assert (out, err) == ("", f"Pyrope {__version__} ready on 127.0.0.1:7379\n")
    assert type(server.loop).__module__.startswith("uvloop")


@pytest.mark.usefixtures("_restore_logging")
def test_the_ready_line_is_json_where_the_log_is_whatever_the_level(
    capfd: pytest.CaptureFixture[str], clock: ManualClock
) -> None:
    settings = Settings.model_validate({"log": {"format": "json", "level": "error"}})
    assert run(settings, clock, FakeServer()) == 0
    assert json.loads(capfd.readouterr().err) == {
        "event": "ready",
        "version": __version__,
        "addresses": "127.0.0.1:7379",
        "level": "info",
        "timestamp": "2023-11-14T22:13:20.000Z",
    }


@pytest.mark.usefixtures("_restore_logging")
@pytest.mark.parametrize(
    "reason",
    [OSError(98, "address already in use"), StorageError("in use"), MisconfError("read-only")],
)
def test_a_server_that_cannot_start_exits_with_1_and_one_line(
    reason: Exception, capfd: pytest.CaptureFixture[str], clock: ManualClock
) -> None:
    assert run(Settings(), clock, FakeServer(before=reason)) == 1
    err = capfd.readouterr().err
    assert f"cannot start: {reason}" in err
    assert err.count("\n") == 1


@pytest.mark.usefixtures("_restore_logging")
def test_a_failure_after_the_start_is_not_dressed_up(clock: ManualClock) -> None:
    with pytest.raises(OSError, match="surprise"):
        run(Settings(), clock, FakeServer(after=OSError("surprise")))


# -- serve: the real thing ----------------------------------------------------------------------


def start(*args: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pyrope", "serve", "--http-port", "0", *args],
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_ready(server: subprocess.Popen[str]) -> str:
    """The ready line; whatever is logged before it is passed over."""
    assert server.stderr is not None
    for line in server.stderr:
        if " ready on " in line:
            return line
    raise AssertionError("the server ended before it was ready")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_serve_says_when_it_is_ready_answers_and_drains_on_a_signal(
    signum: signal.Signals, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    with start("--port", "0", "--unixsocket", str(path), "--data-dir", str(tmp_path)) as server:
        try:
            assert str(path) in wait_for_ready(server)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                client.sendall(b"PING\r\n")
                assert client.recv(64) == b"+PONG\r\n"
            server.send_signal(signum)
            assert server.wait(READY_TIMEOUT_S) == 0
        finally:
            server.kill()
    assert not path.exists()


def test_serve_on_a_port_in_use_exits_with_1_and_no_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with start("--port", port, "--data-dir", str(tmp_path)) as server:
            _, err = server.communicate(timeout=READY_TIMEOUT_S)
    assert server.returncode == 1
    assert "cannot start" in err
    assert "Traceback" not in err


def test_a_second_server_on_the_same_data_exits_with_1_and_no_traceback(tmp_path: Path) -> None:
    data = ("--port", "0", "--data-dir", str(tmp_path))
    with start(*data, "--unixsocket", str(tmp_path / "a")) as first:
        try:
            wait_for_ready(first)
            with start(*data, "--unixsocket", str(tmp_path / "b")) as second:
                _, err = second.communicate(timeout=READY_TIMEOUT_S)
        finally:
            first.kill()
    assert second.returncode == 1
    assert "cannot start" in err
    assert "Traceback" not in err
